"""What reports rely on in the free tables of a record, so that a record of others cannot break them midway."""

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

Count = Annotated[int, Field(ge=0, strict=True)]
Share = Annotated[float, Field(allow_inf_nan=False)]


class _Table(BaseModel):
    """Named fields are of their kind; further ones are left alone."""

    model_config = ConfigDict(extra="allow")


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
    held_out: StrictBool | Literal["unknown"] = True
    uncalibrated: StrictBool = False
    differs: list[StrictStr] = []
    changed: list[StrictStr] = []
    method: _MethodToo = _MethodToo()
    parameters: Count = 0
    train_images: Count = 0
    validation_images: Count = 0
    left_out: dict[StrictStr, Count] = {}
    notes: list[StrictStr] = []


def _apart(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError("a fold is named twice")
    return names


class _FoldFacts(_Facts):
    """Of a fold besides: which folds there are, and by what rule."""

    folds: Annotated[list[StrictStr], Field(min_length=1), AfterValidator(_apart)]
    rule: StrictStr
    split_hash: StrictStr


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
        *((f"result.{part}", _Result, told) for part, told in result.items() if isinstance(told, dict)),
    ]
    for name, schema, content in tables:
        try:
            schema.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, (name, *first['loc'])))}: {first['msg']}") from None
    if kind == "fold" and fold not in facts["folds"]:
        raise ValueError(f"facts.folds: does not name the run's own fold {fold!r}")
