"""The recipe of convolutional networks: the schema of their TOML files. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AliasChoices, Field, PositiveFloat, PositiveInt, model_validator

from ferbench.methods.interface import PRETRAIN
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol

TEACHER, GENDER = "teacher", "gender"  # kinds of training on faces with attributes

Two = tuple[PositiveInt, PositiveInt]
Three = tuple[PositiveInt, PositiveInt, PositiveInt]
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
    """DCMA-CNNs: a network of two convolutions on square patches beside one of three on the whole face.

    side, stride : of the patches, in pixels. patch_widths, patch_feature : of the patch network. widths, face_feature :
    of the face network. Features are pooled over the face, its mirror image (``mirror``), and rotations by ``turns``
    degrees.
    """

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
    """FN2EN: five steps of ``depth`` 3×3 convolutions with ReLU, max-pooling after the first four, then one fully
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
    """L = L_S + weight · L_C. ``alpha``: learning rate of the centers. ``start``: their initial values."""

    kind: Literal["center"]
    weight: float = Field(ge=0)
    alpha: PositiveFloat
    start: Literal["zeros", "normal"]


class IslandLoss(Schema):
    """L = L_S + weight · (L_C + push · Σ over pairs of centers of their cosine + 1).

    step : how the push moves the centers: by the step that the paper prints, or as "autograd" by the gradient of the
        sum over ``pairs``: "ordered", "unordered" (half of it), or the "mean" of the ordered ones.
    """

    kind: Literal["island"]
    weight: float = Field(ge=0)
    push: float = Field(ge=0)
    alpha: PositiveFloat
    start: Literal["zeros", "normal"]
    step: Literal["paper", "autograd"]
    pairs: Literal["ordered", "unordered", "mean"]


class LocalityLoss(Schema):
    """L = L_S + weight · L_LP with the nearest ``neighbours`` of the same class in the batch.

    batches : "shuffled", or "grouped": few classes in a batch, so that each image has all its neighbours there.
    """

    kind: Literal["locality"]
    weight: float = Field(ge=0)
    neighbours: PositiveInt
    batches: Literal["shuffled", "grouped"]


class IdentityLoss(Schema):
    """IACNN. ``softmax``: λ1 = λ2, of the expression branch. ``expression``: λ3. ``identity``: λ4. ``joint``: λ5.
    ``margin``: of both contrastive losses."""

    kind: Literal["identity"]
    softmax: float = Field(ge=0)
    expression: float = Field(ge=0)
    identity: float = Field(ge=0)
    joint: float = Field(ge=0)
    margin: PositiveFloat


class TupletLoss(Schema):
    """L = L_S + weight · L_(N+M). ``positives``: N, without the query. ``threshold``: initial T. ``gap``: τ. ``rate``:
    learning rate of T relative to that of the weights. ``metric``: length of the vectors that are compared."""

    kind: Literal["tuplet"]
    weight: float = Field(ge=0)
    positives: PositiveInt
    threshold: PositiveFloat
    gap: float = Field(ge=0)
    rate: float = Field(ge=0)
    metric: PositiveInt


class RegressionLoss(Schema):
    """FN2EN: before the training by softmax, the convolutions learn the maps of a ``teacher`` (``epochs``, ``lr``).

    learns : what the teacher is trained for, "identities" or "attributes"; "either" takes identities where the dataset
        has enough people with several images each, and attributes elsewhere.
    """

    kind: Literal["regression"]
    teacher: StackShape
    learns: Literal["either", "identities", "attributes"]
    epochs: PositiveInt
    lr: PositiveFloat


class TreeLoss(Schema):
    """PAT: L = Σ over leaves of P(leaf) · CE_leaf + ``attribute`` · CE_attributes + ``center`` · L_PAT. ``node``:
    length of the features of nodes and leaves. ``alpha``: learning rate of the centers."""

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
    """normalise : constants of grey values (``training.normalise``). border : pixels that a rotation uncovers
    (``training.augment``). pretrained : whether folds start from a pre-training."""

    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]
    pretrained: bool = True


class CnnStage(Stage):
    """``shift``: the largest shift of an image along each axis, as a share of its side."""

    shift: float = Field(0.0, ge=0, lt=0.5)


class FinetuneStage(CnnStage):
    """Training on the target set. ``classifier``: after a pre-training, "new" starts with random weights for all
    classes, and "shared" keeps the weights of the classes that the pre-training set has as well."""

    classifier: Literal["new", "shared"] = "new"


class CnnRecipe(Schema):
    """The hyperparameters of a method.

    pretrain : training of the trunk by softmax. attributes : training of the parent network that some losses need.
    """

    network: Shape
    loss: Loss
    # Records and hashed identities have this table under its former name, so that keys of runs stay the same.
    interpretation: Interpretation = Field(
        validation_alias=AliasChoices("interpretation", "readings"), serialization_alias="readings"
    )
    pretrain: CnnStage
    finetune: FinetuneStage
    attributes: CnnStage | None = None

    @property
    def parent_kind(self) -> str:
        """The kind of training, on faces with attributes, whose network the loss needs; empty where it needs none."""
        return {"regression": TEACHER, "tree": GENDER}.get(self.loss.kind, "")

    @property
    def parent_shape(self) -> Shape:
        """The shape of that network: the teacher of the loss, or the shape of the method's network."""
        return self.loss.teacher if isinstance(self.loss, RegressionLoss) else self.network

    @property
    def parent_target(self) -> str:
        """The targets of that network (:func:`ferbench.methods.cnn.recogniser.targets`)."""
        return self.loss.learns if isinstance(self.loss, RegressionLoss) else "Male"

    @property
    def pretraining_loss(self) -> Loss | None:
        """The loss of a pre-training, None for softmax."""
        return self.loss if self.loss.kind == "regression" else None

    def stage(self, kind: str, protocol: Protocol | None) -> CnnStage:
        """The schedule of a training of this kind. protocol : None is equivalent to one with a pre-training dataset.

        Without a pre-training dataset a fold starts from random weights and has the schedule of a pre-training.
        """
        if kind in (TEACHER, GENDER):
            assert self.attributes is not None
            return self.attributes
        from_random_weights = kind == PRETRAIN or (protocol is not None and not protocol.pretrain)
        return self.pretrain if from_random_weights and self.interpretation.pretrained else self.finetune

    @model_validator(mode="after")
    def _has_attributes_if_needed(self) -> Self:
        if self.parent_kind and self.attributes is None:
            raise ValueError(f"the loss {self.loss.kind} needs a table [attributes]")
        return self
