"""The schedule of one training in the TOML file of a recipe. Importing this loads no torch."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from ferbench.schema import Schema

# Called with the numbers of finished steps and of all steps, and a text such as the loss of the last epoch.
Progress = Callable[[int, int, str], None]


class Stage(Schema):
    """The schedule of one training. drops : fractions of the epochs after which the learning rate is × 0.1."""

    epochs: PositiveInt
    lr: PositiveFloat
    drops: tuple[float, ...]
    batch: PositiveInt
    momentum: float = Field(ge=0, lt=1)  # of AdamW: the decay rate of the mean of gradients (β1)
    weight_decay: float = Field(ge=0)
    augment: Literal["expand", "sample", "none"]
    # Fields with defaults go beyond the paper and are off by default.
    anneal: Literal["drops", "cosine"] = "drops"  # cosine: Loshchilov & Hutter 2017, without restarts
    ema: float = Field(0.0, ge=0)  # how many epochs the moving average of the weights, which is tested, spans
    optimizer: Literal["sgd", "adamw"] = "sgd"  # adamw: Loshchilov & Hutter 2019

    @model_serializer(mode="wrap")
    def _without_default_optimizer(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out SGD, so that runs without this field keep their keys."""
        content = serialize(self)
        if self.optimizer == "sgd":
            content.pop("optimizer", None)
        return content

    def identity(self) -> dict[str, Any]:
        """The fields that identify a training, without those at their defaults."""
        off = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        return self.model_dump(exclude=off)
