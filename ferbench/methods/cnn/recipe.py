"""The recipe of the convolutional networks: the schema of their TOML files. No torch."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, PositiveFloat, PositiveInt, model_validator

from ferbench.schema import Schema
from ferbench.training.schedule import Stage

TEACHER, GENDER = "teacher", "gender"  # kinds of training on faces with attributes

Three = tuple[PositiveInt, PositiveInt, PositiveInt]
Two = tuple[PositiveInt, PositiveInt]
Four = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
Five = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]
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


class PatchShape(Schema):
    """DCMA-CNNs: a network of two convolutions on square patches (``side`` and ``stride`` in pixels; ``patch_widths``,
    ``patch_feature``) beside one of three on the whole face (``widths``, ``face_feature``), both pooled over the face
    itself, its ``mirror`` image, and rotations by ``turns`` degrees."""

    trunk: Literal["dcma"]
    side: PositiveInt
    stride: PositiveInt
    patch_widths: Two
    patch_feature: PositiveInt
    widths: Three
    face_feature: PositiveInt
    feature: PositiveInt
    mirror: bool
    turns: tuple[float, ...]


class StackShape(Schema):
    """FN2EN: five steps of ``depth`` 3×3 convolutions with ReLU each, max-pooling after the first four, then one fully
    connected layer."""

    trunk: Literal["fn2en"]
    widths: Five
    depth: PositiveInt
    feature: PositiveInt


Shape = Annotated[SmallShape | BaseShape | ResNetShape | PatchShape | StackShape, Field(discriminator="trunk")]


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


class RegressionLoss(Schema):
    """FN2EN: ``epochs`` at ``lr`` in which the convolutions learn the maps of a ``teacher``, before softmax.

    learns : what the teacher is trained for, "identities" or "attributes"; "either": identities where the set has
    several images of each of enough people, else attributes.
    """

    kind: Literal["regression"]
    teacher: StackShape
    learns: Literal["either", "identities", "attributes"]
    epochs: PositiveInt
    lr: PositiveFloat


class TreeLoss(Schema):
    """PAT: L = Σ over leaves of P(leaf) · CE_leaf + ``attribute`` · CE_attributes + ``center`` · L_PAT. ``node``:
    length of the features of nodes and leaves. ``alpha``: rate of the centers."""

    kind: Literal["tree"]
    node: PositiveInt
    attribute: float = Field(ge=0)
    center: float = Field(ge=0)
    alpha: PositiveFloat


Loss = Annotated[
    SoftmaxLoss | CenterLoss | IslandLoss | LocalityLoss | IdentityLoss | TupletLoss | RegressionLoss | TreeLoss,
    Field(discriminator="kind"),
]


class Interpretation(Schema):
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
    """A method of this family. ``pretrain``: plain softmax on the trunk. ``attributes``: the training of a network on
    faces with attributes or identities, for losses that ask one."""

    network: Shape
    loss: Loss
    # Records and hashed identities have this table under its former name, so that keys of runs stay the same.
    interpretation: Interpretation = Field(
        validation_alias=AliasChoices("interpretation", "readings"), serialization_alias="readings"
    )
    pretrain: NetworkStage
    finetune: TargetStage
    attributes: NetworkStage | None = None

    @property
    def asks(self) -> str:
        """The kind of training, on faces with attributes, of the network that the loss asks; empty for none."""
        return {"regression": TEACHER, "tree": GENDER}.get(self.loss.kind, "")

    @property
    def pretrains(self) -> Loss | None:
        """The loss that takes part in pre-training as well."""
        return self.loss if self.loss.kind == "regression" else None

    @model_validator(mode="after")
    def _asked(self) -> Self:
        if self.asks and self.attributes is None:
            raise ValueError(f"the loss {self.loss.kind} needs a table [attributes]")
        return self
