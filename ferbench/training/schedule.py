"""The schedule of one training in the TOML file of a recipe, and the names of devices, precisions and engines.

Importing this loads no torch, so that recipes are read and options are checked without it.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SerializerFunctionWrapHandler, model_serializer

from ferbench.errors import UsageError
from ferbench.schema import Schema

DEVICES = ("cpu", "cuda")
PRECISIONS = ("fp32", "tf32", "bf16")
ENGINES = ("plain", "fast", "compiled", "searched")

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
    # cosine: Loshchilov & Hutter 2017, without restarts; exponential: × 0.9 after each epoch, without drops
    anneal: Literal["drops", "cosine", "exponential"] = "drops"
    ema: float = Field(0.0, ge=0)  # how many epochs the moving average of the weights, which is tested, spans
    optimizer: Literal["sgd", "adamw"] = "sgd"  # adamw: Loshchilov & Hutter 2019
    warmup: NonNegativeInt = 0  # epochs in which the learning rate rises linearly (Goyal et al. 2017, section 2.2)
    sam: float = Field(
        0.0, ge=0
    )  # ρ of sharpness-aware minimisation (Foret et al. 2021), which takes two passes a step

    @model_serializer(mode="wrap")
    def _without_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that runs from before them keep their keys."""
        content = serialize(self)
        for name in ("optimizer", "warmup", "sam"):
            if getattr(self, name) == Stage.model_fields[name].default:
                content.pop(name, None)
        return content

    def identity(self) -> dict[str, Any]:
        """The fields that identify a training, without those at their defaults."""
        off = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        return self.model_dump(exclude=off)


def check_device(name: str, precision: str, engine: str) -> None:
    """Raise UsageError for a device, precision or engine that is neither "auto" nor known, or that do not go together.

    What this machine lacks is refused by :meth:`ferbench.training.device.Device.chosen`, which loads torch.
    """
    if name not in ("auto", *DEVICES):
        raise UsageError(f"unknown device {name!r}: it is auto, cpu or cuda")
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"unknown precision {precision!r}: it is auto or one of {', '.join(PRECISIONS)}")
    if engine not in ("auto", *ENGINES):
        raise UsageError(f"unknown engine {engine!r}: it is auto or one of {', '.join(ENGINES)}")
    if name == "cpu" and precision == "tf32":
        raise UsageError("tf32 is a mode of NVIDIA GPUs: on a CPU take --precision fp32 or bf16")
    if name == "cpu" and engine == "searched":
        raise UsageError("searched is a mode of NVIDIA's cuDNN: on a CPU take --engine compiled")
