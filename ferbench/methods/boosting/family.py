"""What boosted deep belief networks are to the rest of ferbench. Importing this loads no torch and no scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ferbench.methods.boosting.recipe import Recipe
from ferbench.methods.interface import Family, Recogniser

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method


class BoostingFamily(Family):
    """Each fold is one training, in float64 on the CPU; nothing comes before it."""

    recipe = Recipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.boosting.recogniser import BoostedBelief

        return BoostedBelief(method.recipe, classes)


FAMILY = BoostingFamily()
