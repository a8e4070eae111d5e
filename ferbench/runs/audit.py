"""What the training and the test set of a fold have in common: part of its record, of the plan and of reports."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictStr

Count = Annotated[int, Field(ge=0, strict=True)]


class Audit(BaseModel):
    """The audit of one fold, or of several (:meth:`together`).

    subjects : names that are in training and test set. samples : ids that are in both. pictures : ids of other test
        images whose picture is a training image's too, under whichever name, subject or label. near_copies : ids of
        further ones that are near copies of a training image's picture; None where that is unknown.
    tested : test images. unknown : images of training and test set that name no subject.
    """

    model_config = ConfigDict(frozen=True)

    subjects: list[StrictStr] = []
    samples: list[StrictStr] = []
    pictures: list[StrictStr] = []
    near_copies: list[StrictStr] | None = None
    tested: Count = 0
    unknown: Count = 0

    @classmethod
    def together(cls, folds: "Sequence[Audit]") -> "Audit":
        """Return one audit of several folds. unknown : the largest of theirs, since folds share their images."""
        near = [fold.near_copies for fold in folds if fold.near_copies is not None]
        return cls(
            subjects=sorted({name for fold in folds for name in fold.subjects}),
            samples=[name for fold in folds for name in fold.samples],
            pictures=[name for fold in folds for name in fold.pictures],
            near_copies=[name for names in near for name in names] if len(near) == len(folds) else None,
            tested=sum(fold.tested for fold in folds),
            unknown=max((fold.unknown for fold in folds), default=0),
        )

    @property
    def seen(self) -> set[str]:
        """The test images of which the training set has the picture or a near copy."""
        return {*self.samples, *self.pictures, *(self.near_copies or ())}

    def __str__(self) -> str:
        known = "known " if self.unknown else ""
        people = f"{len(self.subjects):,} {known}subjects shared, 0 spelled in two ways"
        if self.unknown:
            people += f", {self.unknown:,} images of unknown subject"
        same = f"{len({*self.samples, *self.pictures}):,} of the {self.tested:,} tested images"
        near = "near copies are unknown: prepare the dataset again"
        if self.near_copies is not None:
            near = f"near copies of {len(self.near_copies):,} more"
        return f"{people}; the training set has {same}, {near}"
