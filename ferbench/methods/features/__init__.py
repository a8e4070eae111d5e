"""Hand-crafted features with classical classifiers, of images and of sequences.

The ``kind`` of the descriptor selects the method. Numbers of cells, windows and boxes are in the order x, y, t.
Importing this loads neither scikit-learn nor scikit-image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ferbench.errors import UsageError
from ferbench.methods.interface import Family, Recogniser, Task
from ferbench.schema import Schema

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.training.device import Device

Frames = Annotated[int, Field(ge=2)]  # a change over time needs two


class Frequencies(Schema):
    """No description: the frequencies of the classes in the training set."""

    kind: Literal["frequencies"]


class Hog(Schema):
    """Histograms of oriented gradients (Dalal & Triggs 2005) of one image, or of the change since the first frame.

    reference : what is subtracted: nothing ("none"), or the "image" or "histogram" of the first frame of the sequence.
    """

    kind: Literal["hog"]
    orientations: PositiveInt
    cell: PositiveInt  # pixels
    block: PositiveInt  # cells
    reference: Literal["none", "image", "histogram"]


class Hog3d(Schema):
    """HOG 3D (Kläser, Marszałek, Schmid 2008).

    pool : "box" gives one descriptor of the whole sequence, "words" the frequencies of ``words`` codewords in boxes of
    size ``box`` (pixels, pixels, frames) that overlap by half. least : boxes are omitted if the sum of the norms of
    their cells, in grey levels per pixel, is smaller.
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
    cell: PositiveInt  # pixels; a cuboid has 2 by 2 cells; neighbouring cuboids differ by one cell
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
    """LOMo (Sikka, Sharma, Bartlett 2016): templates of frames and their order. reads : descriptions of a frame."""

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
    def _fits(self) -> SubEvents:
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

    c : penalties, from which the best one on held-out subjects of the training set is selected. inner : number of
    folds of this selection. scale : "standard" scales each feature to mean 0 and deviation 1.
    kernel : "linear", or "chi2", the additive χ² kernel by its feature map (Vedaldi & Zisserman 2012).
    """

    c: tuple[PositiveFloat, ...] = Field(min_length=1)
    inner: Annotated[int, Field(ge=2)]
    scale: Literal["none", "standard"]
    kernel: Literal["linear", "chi2"]


class Training(Schema):
    """augment : "expand" learns from the 14 derived samples of each sample, "none" from the sample alone."""

    augment: Literal["none", "expand"]


class FeatureRecipe(Schema):
    """The hyperparameters of a method. LOMo and the class frequencies have no ``classifier``."""

    descriptor: DescriptorSettings
    classifier: Classifier | None = None
    training: Training = Training(augment="none")

    @model_validator(mode="after")
    def _has_classifier_if_needed(self) -> FeatureRecipe:
        complete = isinstance(self.descriptor, Frequencies | SubEvents)
        if complete != (self.classifier is None):
            raise ValueError(f"{self.descriptor.kind} {'has no' if complete else 'needs a'} table [classifier]")
        return self


class FeaturesFamily(Family[FeatureRecipe]):
    """Each fold is one training: a fixed descriptor, features learned from its output, and a linear classifier."""

    recipe = FeatureRecipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method[FeatureRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        """Raises UsageError where the libraries of the extra ``features`` are not installed."""
        try:
            return _build(method.recipe, len(classes))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("skimage", "pyriemann"):
                raise
            raise UsageError(f"{method.title} needs {error.name}: pip install 'ferbench[features]'") from None

    def needs(self, method: Method[FeatureRecipe]) -> frozenset[str]:
        descriptor = method.recipe.descriptor
        if isinstance(descriptor, Frequencies):
            return frozenset()
        if isinstance(descriptor, Hog):
            return frozenset() if descriptor.reference == "none" else frozenset({"sequences", "neutral"})
        landmarks = isinstance(descriptor, SubEvents) and "shape" in descriptor.reads
        return frozenset({"sequences", "landmarks"} if landmarks else {"sequences"})

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        """The estimate of the largest class is 0: it only counts, and needs none of the libraries of the others."""
        measured: list[Callable[[Task, int], float]] = []

        def seconds(task: Task, threads: int) -> float:
            if isinstance(task.method.recipe.descriptor, Frequencies):
                return 0.0
            if not measured:
                from ferbench.methods.features.recogniser import FeatureEstimate

                measured.append(FeatureEstimate(_build))
            return measured[0](task, threads)

        return seconds


def _build(recipe: FeatureRecipe, classes: int) -> Recogniser:
    descriptor = recipe.descriptor
    if isinstance(descriptor, SubEvents):
        from ferbench.methods.features.lomo import LomoRecogniser

        return LomoRecogniser(recipe, classes)
    from ferbench.methods.features.recogniser import DescriptorRecogniser, LargestClassRecogniser

    if isinstance(descriptor, Frequencies):
        return LargestClassRecogniser(classes)
    if isinstance(descriptor, Hog):
        from ferbench.methods.features.gradients import ImageHistogram, ReferencedHistogram

        kind: type[ImageHistogram] = ImageHistogram if descriptor.reference == "none" else ReferencedHistogram
        return DescriptorRecogniser(recipe, lambda: kind(descriptor), classes)
    if isinstance(descriptor, Hog3d):
        from ferbench.methods.features.gradients import SpaceTimeGradients

        return DescriptorRecogniser(recipe, lambda: SpaceTimeGradients(descriptor), classes)
    if isinstance(descriptor, Covariance):
        from ferbench.methods.features.covariance import WindowCovariances

        return DescriptorRecogniser(recipe, lambda: WindowCovariances(descriptor), classes)
    assert isinstance(descriptor, Expressionlets)
    from ferbench.methods.features.expressionlets import ModePooling

    return DescriptorRecogniser(recipe, lambda: ModePooling(descriptor), classes)


FAMILY = FeaturesFamily()
