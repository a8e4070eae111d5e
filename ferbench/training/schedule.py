"""The schedule of one training: what a recipe's TOML says of it. No torch, so that recipes are read without it."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ferbench.schema import Schema


class Stage(Schema):
    """One training: SGD with a step schedule. ``drops`` are fractions of the epochs where lr is × 0.1."""

    epochs: PositiveInt
    lr: PositiveFloat
    drops: tuple[float, ...]
    batch: PositiveInt
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augment: Literal["expand", "sample", "none"]
    # Beyond the paper, each off by itself, as is whatever else has a default here.
    anneal: Literal["drops", "cosine"] = "drops"  # cosine: Loshchilov & Hutter 2017, without restarts
    ema: float = Field(0.0, ge=0)  # epochs that a moving average of the weights, tested in their place, looks back on

    def identity(self) -> dict[str, Any]:
        """The fields that identify a training: what is beyond the paper only where it is on."""
        off = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        return self.model_dump(exclude=off)
