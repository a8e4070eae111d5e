"""What feature pipelines are to the rest of ferbench. Importing this loads neither scikit-learn nor scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from ferbench.errors import UsageError
from ferbench.methods.features.recipe import Covariance, Expressionlets, Frequencies, Hog, Hog3d, Recipe, SubEvents
from ferbench.methods.interface import Family, Recogniser, Task

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.training.device import Device


class FeaturesFamily(Family):
    """Each fold is one training: a description by hand, what scikit-learn learns of it, margins for each class."""

    recipe = Recipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        """Raises UsageError where the libraries of the extra ``features`` are not installed."""
        try:
            return _made(method.recipe, len(classes))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in ("skimage", "pyriemann"):
                raise
            raise UsageError(f"{method.title} needs {error.name}: pip install 'ferbench[features]'") from None

    def needs(self, method: Method) -> frozenset[str]:
        descriptor = method.recipe.descriptor
        if isinstance(descriptor, Frequencies):
            return frozenset()
        if isinstance(descriptor, Hog):
            return frozenset() if descriptor.reference == "none" else frozenset({"sequences", "neutral"})
        shape = isinstance(descriptor, SubEvents) and "shape" in descriptor.reads
        return frozenset({"sequences", "landmarks"} if shape else {"sequences"})

    def estimate(self, device: Device) -> Callable[[Task, int], float] | None:
        from ferbench.methods.features.cost import estimator

        return estimator(_made)


def _made(recipe: Recipe, classes: int) -> Recogniser:
    descriptor = recipe.descriptor
    if isinstance(descriptor, Frequencies):
        from ferbench.methods.features.frequencies import LargestClass

        return LargestClass(classes)
    if isinstance(descriptor, SubEvents):
        from ferbench.methods.features.lomo import SubEventModel

        return SubEventModel(recipe, classes)
    from ferbench.methods.features.pipeline import Pipeline

    if isinstance(descriptor, Hog):
        from ferbench.methods.features.histograms import ImageHistogram, ReferencedHistogram

        kind: type[ImageHistogram] = ImageHistogram if descriptor.reference == "none" else ReferencedHistogram
        return Pipeline(recipe, lambda: kind(descriptor), classes)
    if isinstance(descriptor, Hog3d):
        from ferbench.methods.features.gradients import SpaceTimeGradients

        return Pipeline(recipe, lambda: SpaceTimeGradients(descriptor), classes)
    if isinstance(descriptor, Covariance):
        from ferbench.methods.features.covariance import WindowCovariances

        return Pipeline(recipe, lambda: WindowCovariances(descriptor), classes)
    assert isinstance(descriptor, Expressionlets)
    from ferbench.methods.features.expressionlets import ModePooling

    return Pipeline(recipe, lambda: ModePooling(descriptor), classes)


FAMILY = FeaturesFamily()
