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
    """L = L_S + weight · L_C; ``alpha`` is the centers' rate, ``start`` what they are before the first step."""

    kind: Literal["center"]
    weight: float = Field(ge=0)
    alpha: PositiveFloat
    start: Literal["zeros", "normal"]


class IslandLoss(Schema):
    """L = L_S + weight · (L_C + push · Σ over pairs of centers of their cosine + 1).

    step : how the push moves the centers: as the paper's own step, or as "autograd" would by the sum over ``pairs``,
    which are "ordered", "unordered" (half of it) or the "mean" of the ordered ones.
    """

    kind: Literal["island"]
    weight: float = Field(ge=0)
    push: float = Field(ge=0)
    alpha: PositiveFloat
    start: Literal["zeros", "normal"]
    step: Literal["paper", "autograd"]
    pairs: Literal["ordered", "unordered", "mean"]


class LocalityLoss(Schema):
    """L = L_S + weight · L_LP over so many ``neighbours`` of a class in the batch. ``batches`` are "shuffled", or
    "grouped": of as many classes as can have all their neighbours there."""

    kind: Literal["locality"]
    weight: float = Field(ge=0)
    neighbours: PositiveInt
    batches: Literal["shuffled", "grouped"]


class IdentityLoss(Schema):
    """IACNN: λ1 = λ2 ``softmax`` of the expression branch, λ3 ``expression``, λ4 ``identity``, λ5 ``joint``; ``margin``
    of both contrastive losses."""

    kind: Literal["identity"]
    softmax: float = Field(ge=0)
    expression: float = Field(ge=0)
    identity: float = Field(ge=0)
    joint: float = Field(ge=0)
    margin: PositiveFloat


class TupletLoss(Schema):
    """L = L_S + weight · L_(N+M). ``positives``: N, beside the query. ``threshold`` T before the first step, ``gap`` τ,
    ``rate``: T's learning rate in learning rates of the weights. ``metric``: length of the vectors compared."""

    kind: Literal["tuplet"]
    weight: float = Field(ge=0)
    positives: PositiveInt
    threshold: PositiveFloat
    gap: float = Field(ge=0)
    rate: float = Field(ge=0)
    metric: PositiveInt


Loss = Annotated[
    SoftmaxLoss | CenterLoss | IslandLoss | LocalityLoss | IdentityLoss | TupletLoss, Field(discriminator="kind")
]


class Readings(Schema):
    """normalise : constants of grey values (``training.normalise``). border : what a rotation uncovers
    (``training.augment``). pretrained : whether folds start from a pre-training."""

    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]
    pretrained: bool = True


class NetworkStage(Stage):
    """``shift``: how far each image is shifted at most, right or left and up or down, in sides of the image."""

    shift: float = Field(0.0, ge=0, lt=0.5)


class TargetStage(NetworkStage):
    """Training on the target set. ``classifier``: after pre-training, "new" begins with random weights for all classes,
    "shared" takes over the weights of those that the pre-training set has as well."""

    classifier: Literal["new", "shared"] = "new"


class Recipe(Schema):
    """A method of this family. ``pretrain``: plain softmax on the trunk."""

    network: Shape
    loss: Loss
    readings: Readings
    pretrain: NetworkStage
    finetune: TargetStage
