"""What reports rely on in the free tables of a record, checked when it is read: the audit of its folds, whether what it
tests was held out, and the kinds of its entries."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    model_validator,
)

Share = Annotated[float, Field(allow_inf_nan=False)]
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


class _Table(BaseModel):
    """Named fields are of their kind; further ones are left alone."""

    model_config = ConfigDict(extra="allow")


FEW = 0.05  # share of a test set


class HeldOut(BaseModel):
    """Whether nothing of what is tested was learned from, and how that is known.

    by : pictures and people themselves ("content"), the word of a model's authors, or names in ferbench's own records.
    images, people : how many of the ``tested`` samples were learned from, in person or as pictures, and of how many
    people these are. repeated : the training set of the official split holds all of these images too, so that every
    method under this protocol learns from them. why : what is missing where the status is "unknown".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["yes", "no", "unknown"]
    by: Literal["content", "authors", "names"] = "content"
    images: Count = 0
    tested: Count = 0
    people: Count = 0
    repeated: StrictBool = False
    why: StrictStr = ""

    @classmethod
    def of_all(cls, facts: Sequence["HeldOut"]) -> "HeldOut":
        """What is to be said of several test sets together, such as those of folds: the weakest of all."""
        if learned := [fact for fact in facts if fact.status == "no"]:
            sums = {name: sum(getattr(fact, name) for fact in facts) for name in ("images", "tested", "people")}
            by = "content" if sums["images"] else learned[0].by
            return cls(status="no", by=by, repeated=all(fact.repeated for fact in learned), **sums)
        return max(facts, key=lambda fact: (fact.status == "unknown", fact.by != "content"))

    @property
    def comparable(self) -> bool:
        """Whether a figure may stand beside others: what was learned from, every method learns from, or it is at most
        :data:`FEW` of the test set, and the figure without it stands beside."""
        return self.status == "yes" or self.repeated or 0 < self.images <= FEW * self.tested

    def __str__(self) -> str:
        if self.status == "unknown":
            return "unknown"
        if self.by == "content" and self.status == "no":
            people = f", {self.people:,} {'person' if self.people == 1 else 'people'}" if self.people else ""
            return f"no: {self.images:,} of {self.tested:,} images{people}"
        word = {"content": "by content", "authors": "as its authors say", "names": "by name"}[self.by]
        return word if self.status == "yes" and self.by != "content" else f"{self.status} ({word})"


BY_NAMES = HeldOut(status="yes", by="names")


class _Environment(_Table):
    device: StrictStr


class _MethodToo(_Table):
    differs: list[StrictStr] = []


class _Facts(_Table):
    """Of any run that is done."""

    display: StrictStr = ""
    published: StrictStr = ""
    command: StrictStr = ""
    level: Literal["image", "sequence"] = "image"
    sees: StrictStr = ""
    trained_on: StrictStr | list[StrictStr] | None = None
    held_out: HeldOut | StrictBool | Literal["unknown"] = True
    seen: list[StrictStr] = []
    uncalibrated: StrictBool = False
    differs: list[StrictStr] = []
    changed: list[StrictStr] | None = None
    method: _MethodToo = _MethodToo()
    parameters: Count = 0
    train_images: Count = 0
    train_labels: dict[StrictStr, Count] = {}
    validation_images: Count = 0
    left_out: dict[StrictStr, Count] = {}
    notes: list[StrictStr] = []


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a fold is named twice")
    return names


class _FoldFacts(_Facts):
    """Of a fold besides: which folds there are, and by what rule."""

    folds: Annotated[list[StrictStr], Field(min_length=1), AfterValidator(_distinct)]
    rule: StrictStr
    split_hash: StrictStr
    audit: Audit | None = None


class _Result(_Table):
    """A run's summary, or that of one part of the face."""

    accuracy: Annotated[Share, Field(strict=True)] | None = None
    validation_accuracy: Annotated[Share, Field(strict=True)] | None = None
    validation_images: Count = 0
    train_images: Count = 0
    images: Count = 0
    epoch: Count = 0
    pointing: Annotated[Share, Field(strict=True)] | None = None
    pointing_chance: Annotated[Share, Field(strict=True)] | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.validation_accuracy is not None and not self.validation_images:
            raise ValueError("validation_accuracy without validation_images")
        if (self.pointing is None) != (self.pointing_chance is None):
            raise ValueError("pointing and pointing_chance go together")
        return self


def check(environment: dict[str, Any], facts: dict[str, Any], result: dict[str, Any], kind: str, fold: str) -> None:
    """Raise ValueError where a finished run's tables lack what reports read of a run of this kind, or hold it as
    something else. fold : of the run, which has to be one of those that it names."""
    tables: list[tuple[str, type[_Table], dict[str, Any]]] = [
        ("environment", _Environment, environment),
        ("facts", _FoldFacts if kind == "fold" else _Facts, facts),
        ("result", _Result, result),
        *(
            (f"result.{part}", _Result, part_result)
            for part, part_result in result.items()
            if isinstance(part_result, dict)
        ),
    ]
    for name, schema, content in tables:
        try:
            schema.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from None
    if kind == "fold" and fold not in facts["folds"]:
        raise ValueError(f"facts.folds: does not name the run's own fold {fold!r}")
