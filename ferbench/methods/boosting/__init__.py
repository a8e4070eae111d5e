"""Boosted deep belief networks of patches of a face (BDBN). Importing this loads neither torch nor scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ferbench.methods.boosting.recipe import BoostingRecipe
from ferbench.methods.interface import Family, Recogniser

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method


class BoostingFamily(Family[BoostingRecipe]):
    """Each fold is one training without a pre-training, in float64 on the CPU."""

    recipe = BoostingRecipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method[BoostingRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.boosting.recogniser import BoostingRecogniser

        return BoostingRecogniser(method.recipe, classes)


FAMILY = BoostingFamily()
