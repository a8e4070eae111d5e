"""The recipe of this family: a descriptor, a classifier, and the samples to learn from.

The ``kind`` of the descriptor chooses the method. Numbers of cells, windows and boxes are in the order x, y, t.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ferbench.schema import Schema

Frames = Annotated[int, Field(ge=2)]  # a change over time needs two


class Frequencies(Schema):
    """No description: the frequencies of the classes in the training set."""

    kind: Literal["frequencies"]


class Hog(Schema):
    """Histograms of oriented gradients (Dalal & Triggs 2005) of one image, or of the change since the first frame.

    reference : what is subtracted of the first frame of a sequence: nothing ("none"), its "image", or its "histogram".
    """

    kind: Literal["hog"]
    orientations: PositiveInt
    cell: PositiveInt  # pixels
    block: PositiveInt  # cells
    reference: Literal["none", "image", "histogram"]


class Hog3d(Schema):
    """HOG 3D (Kläser, Marszałek, Schmid 2008).

    pool : "box" gives one descriptor of the whole sequence, "words" the frequencies of ``words`` codewords in boxes of
    size ``box`` (pixels, pixels, frames) that overlap by half. least : boxes are left out where the sum of the norms of
    their cells, in grey levels a pixel, is smaller.
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
    """Covariances of the features of pixels in windows (Sanin et al. 2013), in the tangent space at their mean.

    windows : sides in pixels of squares that overlap by half. ridge : share of the mean variance that is added to each.
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
    """LOMo (Sikka, Sharma, Bartlett 2016): templates of frames, their order, and the descriptions of a frame
    (``reads``)."""

    kind: Literal["lomo"]
    frames: Frames
    reads: tuple[Literal["appearance", "shape"], ...] = Field(min_length=1)
    orientations: PositiveInt
    cell: PositiveInt  # pixels
    block: PositiveInt  # cells
    components: PositiveInt  # of the frames' PCA
    templates: Annotated[int, Field(ge=1, le=4)]
    gap: NonNegativeInt  # minimum number of frames between two chosen ones
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


DescriptorSettings = Annotated[
    Frequencies | Hog | Hog3d | Covariance | Expressionlets | SubEvents, Field(discriminator="kind")
]


class Classifier(Schema):
    """A linear support vector machine, one class against the rest.

    c : the penalty; of several, the best one on held-out subjects of the training set. inner : number of folds that
    hold them out. scale : "standard" scales each feature to mean 0 and deviation 1.
    kernel : "linear", or "chi2", the additive one by its feature map (Vedaldi & Zisserman 2012).
    """

    c: tuple[PositiveFloat, ...] = Field(min_length=1)
    inner: Annotated[int, Field(ge=2)]
    scale: Literal["none", "standard"]
    kernel: Literal["linear", "chi2"]


class Training(Schema):
    """augment : "expand" learns from the 14 derived samples of each sample, "none" from the sample alone."""

    augment: Literal["none", "expand"]


class FeatureRecipe(Schema):
    """A method of this family. LOMo and the frequencies have no ``classifier``."""

    descriptor: DescriptorSettings
    classifier: Classifier | None = None
    training: Training = Training(augment="none")

    @model_validator(mode="after")
    def _has_classifier_if_needed(self) -> "FeatureRecipe":
        complete = isinstance(self.descriptor, Frequencies | SubEvents)
        if complete != (self.classifier is None):
            raise ValueError(f"{self.descriptor.kind} {'has no' if complete else 'needs a'} table [classifier]")
        return self
