"""What the recipes of this family say: a descriptor, the classifier behind it, and what is learned from.

A descriptor's ``kind`` chooses the method. Numbers of cells, windows and boxes are in the order x, y, t.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ferbench.schema import Schema

Frames = Annotated[int, Field(ge=2)]  # a change over time needs two


class Frequencies(Schema):
    """No description at all: how often each class was seen."""

    kind: Literal["frequencies"]


class Hog(Schema):
    """Histograms of oriented gradients (Dalal & Triggs 2005) of one image, or of what it has changed to.

    reference : what is subtracted of a sequence's first frame: "none", its "image", or its "histogram".
    """

    kind: Literal["hog"]
    orientations: PositiveInt
    cell: PositiveInt  # pixels
    block: PositiveInt  # cells
    reference: Literal["none", "image", "histogram"]


class Hog3d(Schema):
    """HOG 3D (Kläser, Marszałek, Schmid 2008).

    pool : "box": one descriptor of the whole sequence; "words": how often each of ``words`` codewords occurs
    in boxes of ``box`` (pixels, pixels, frames) that overlap by half.
    least : boxes whose cells' norms have a smaller sum than this (grey levels a pixel) are no words.
    """

    kind: Literal["hog3d"]
    frames: Frames
    solid: Literal["icosahedron", "dodecahedron"]
    half: bool  # opposite directions share a bin
    cells: tuple[PositiveInt, PositiveInt, PositiveInt]
    blocks: PositiveInt  # sub-blocks along each side of a cell
    normalise: Literal["cells", "whole"]
    pool: Literal["box", "words"]
    box: tuple[PositiveInt, PositiveInt, PositiveInt]
    words: Annotated[int, Field(ge=2)]
    least: NonNegativeFloat


class Covariance(Schema):
    """Covariances of pixels' features in windows (Sanin et al. 2013), seen from their Riemannian mean.

    windows : sides in pixels, squares that overlap by half; each over half of the frames, by half, and over all.
    ridge : share of the mean variance that is added to each.
    """

    kind: Literal["cov3d"]
    frames: Annotated[int, Field(ge=4, multiple_of=4)]
    windows: tuple[Annotated[int, Field(ge=2, le=48)], ...] = Field(min_length=1)
    flow: bool
    ridge: PositiveFloat


class Expressionlets(Schema):
    """STM-ExpLet (Liu et al. 2014)."""

    kind: Literal["stm-explet"]
    frames: Frames
    orientations: PositiveInt
    cell: PositiveInt  # pixels; a cuboid is 2 by 2 cells large and one apart from the next
    depth: PositiveInt  # frames of a cuboid
    step: PositiveInt  # frames from a cuboid to the next
    components: PositiveInt  # of the cuboids' PCA
    place: NonNegativeFloat  # weight of the standardised x, y, t beside the first component's deviation of 1
    modes: PositiveInt
    covariance: Literal["diag", "spherical"]  # of each mode
    fitted_on: PositiveInt  # cuboids that the mixture is fitted on, at most
    kept: PositiveInt  # cuboids of a sequence in each mode's covariance
    ridge: PositiveFloat
    discriminant: bool


class SubEvents(Schema):
    """LOMo (Sikka, Sharma, Bartlett 2016): templates of frames, their order, and what a frame is described by."""

    kind: Literal["lomo"]
    frames: Frames
    reads: tuple[Literal["appearance", "shape"], ...] = Field(min_length=1)
    orientations: PositiveInt
    cell: PositiveInt  # pixels
    block: PositiveInt  # cells
    components: PositiveInt  # of the frames' PCA
    templates: Annotated[int, Field(ge=1, le=4)]
    gap: NonNegativeInt  # frames between two that are chosen, at least
    penalty: NonNegativeFloat  # lambda
    rate: PositiveFloat
    epochs: PositiveInt
    restarts: PositiveInt

    @model_validator(mode="after")
    def _fits(self) -> "SubEvents":
        if self.frames < (least := self.templates + (self.templates - 1) * self.gap):
            raise ValueError(f"{self.templates} templates with gap {self.gap} need {least} frames")
        return self

    @property
    def orders(self) -> int:
        return math.factorial(self.templates)


Descriptor = Annotated[Frequencies | Hog | Hog3d | Covariance | Expressionlets | SubEvents, Field(discriminator="kind")]


class Classifier(Schema):
    """A linear support vector machine, one class against the rest.

    c : the penalty; of several the one that does best on held-out subjects of the training set.
    inner : folds that hold them out. scale : each feature to mean 0 and deviation 1, or not.
    kernel : "linear", or "chi2", additive, by its feature map (Vedaldi & Zisserman 2012).
    """

    c: tuple[PositiveFloat, ...] = Field(min_length=1)
    inner: Annotated[int, Field(ge=2)]
    scale: Literal["none", "standard"]
    kernel: Literal["linear", "chi2"]


class Training(Schema):
    """augment : "expand" learns from the 14 derived samples of each, "none" from it alone."""

    augment: Literal["none", "expand"]


class Recipe(Schema):
    """All that decides a training of this family. LOMo and the frequencies have no ``classifier``."""

    descriptor: Descriptor
    classifier: Classifier | None = None
    training: Training = Training(augment="none")

    @model_validator(mode="after")
    def _whole(self) -> "Recipe":
        own = isinstance(self.descriptor, Frequencies | SubEvents)
        if own != (self.classifier is None):
            raise ValueError(f"{self.descriptor.kind} {'has no' if own else 'needs a'} table [classifier]")
        return self
