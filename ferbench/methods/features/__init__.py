"""Hand-crafted features with classical classifiers, of images and of sequences. Importing this loads neither
scikit-learn nor scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from ferbench.errors import UsageError
from ferbench.methods.features.recipe import (
    Covariance,
    Expressionlets,
    FeatureRecipe,
    Frequencies,
    Hog,
    Hog3d,
    SubEvents,
)
from ferbench.methods.interface import Family, Recogniser, Task

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.training.device import Device


class FeaturesFamily(Family[FeatureRecipe]):
    """Each fold is one training: a fixed description, what is learned of descriptions, and a linear classifier."""

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
        from ferbench.methods.features.histograms import ImageHistogram, ReferencedHistogram

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
