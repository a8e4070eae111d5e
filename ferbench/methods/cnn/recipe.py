"""The recipe of the convolutional networks: the schema of their TOML files. No torch."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Three = tuple[PositiveInt, PositiveInt, PositiveInt]
Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Six = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]


class SmallShape(Schema):
    """Three convolutions with batch normalisation, PReLU and max-pooling, then two fully connected layers."""

    trunk: Literal["small-cnn"]
    widths: Three
    kernels: Three
    hidden: PositiveInt
    feature: PositiveInt


class BaseShape(Schema):
    """baseDCNN: six 3×3 convolutions with ReLU, max-pooling after the first, second and fourth, then one fully
    connected layer with ReLU."""

    trunk: Literal["base-dcnn"]
    widths: Six
    feature: PositiveInt


class ResNetShape(Schema):
    """ResNet-18: a 3×3 stem without pooling, four stages of two basic blocks, global average pooling."""

    trunk: Literal["resnet18"]
    widths: Four
    stem_stride: Literal[1, 2]


Shape = Annotated[SmallShape | BaseShape | ResNetShape, Field(discriminator="trunk")]


class SoftmaxLoss(Schema):
    """Cross-entropy alone."""

    kind: Literal["softmax"]


class CenterLoss(Schema):
    """L = L_S + weight · L_C; ``alpha`` is the centers' rate."""

    kind: Literal["center"]
    weight: float = Field(ge=0)
    alpha: PositiveFloat


Loss = Annotated[SoftmaxLoss | CenterLoss, Field(discriminator="kind")]


class Readings(Schema):
    """normalise : constants of grey values (``training.normalise``). border : what a rotation uncovers
    (``training.augment``)."""

    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]


class TargetStage(Stage):
    """Training on the target set. ``classifier``: after pre-training, "new" begins with random weights for all classes,
    "shared" takes over the weights of those that the pre-training set has as well."""

    classifier: Literal["new", "shared"] = "new"


class Recipe(Schema):
    """A method of this family. ``pretrain``: plain softmax on the trunk; left out where there is none."""

    network: Shape
    loss: Loss
    readings: Readings
    pretrain: Stage | None = None
    finetune: TargetStage
