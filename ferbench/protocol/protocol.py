"""Protocols: versioned TOML files that say what is trained on and tested, and how."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from ferbench.errors import UsageError
from ferbench.files import shipped
from ferbench.labels import EMOTIONS, in_order
from ferbench.schema import Name, Schema, read_toml, validated
from ferbench.text import suggestion

Rule = Literal["step", "block", "random", "file"]


def _in_the_one_order(classes: tuple[str, ...]) -> tuple[str, ...]:
    if others := [name for name in classes if name not in EMOTIONS]:
        raise ValueError(f"unknown emotion {others[0]!r}{suggestion(others[0], EMOTIONS)}")
    return tuple(in_order(classes))


class Folds(Schema):
    """Cross-validation over subjects. ``rule``: see :func:`ferbench.protocol.splits.make`; ``count`` folds."""

    rule: Rule = "step"
    count: int = Field(ge=2)


class Official(Schema):
    """A split that the dataset's authors made; values of the column ``split``. Empty: there is no such part.

    A protocol without a test set only pre-trains.
    """

    train: Literal["train", "val", "test"]
    validation: Literal["train", "val", "test", ""] = ""
    test: Literal["train", "val", "test", ""] = ""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        named = [name for name in (self.train, self.validation, self.test) if name]
        if len(set(named)) != len(named):
            raise ValueError("train, validation and test must be different splits")
        return self


class Protocol(Schema):
    """How a set of expressions is trained on and tested. Exactly one of ``folds`` and ``official`` is given."""

    kind: Literal["expressions"] = "expressions"
    name: Name
    version: PositiveInt
    description: str
    source: str  # the paper or readme that the rules come from
    dataset: Name  # of the prepared dataset
    classes: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_in_the_one_order)]
    frames: Literal["last3", "all"] = "all"
    level: Literal["image", "sequence"] = "image"  # what is predicted and counted
    folds: Folds | None = None
    official: Official | None = None
    preset: str = ""  # that is taken where none is named and the method has it
    attributes: str = ""  # the protocol of attributes that methods learn from which need some; empty: none
    pretrain: str = ""  # the protocol whose training set pre-trains stage 2; empty: none
    expected_images: PositiveInt | None = None  # in training and test sets together; sequences where these are counted

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.folds is None) == (self.official is None):
            raise ValueError("there must be exactly one of [folds] and [official]")
        return self

    @property
    def identifier(self) -> str:
        """Name and version, as printed in every table: ``ckplus@1``."""
        return f"{self.name}@{self.version}"


class Parts(Schema):
    """The attributes of each part of the face; an image is positive when it has any of them."""

    eyes: Annotated[tuple[str, ...], Field(min_length=1)]
    mouth: Annotated[tuple[str, ...], Field(min_length=1)]


class AttributeProtocol(Schema):
    """How the attention maps are learned: parts, their attributes, and how many images are drawn."""

    kind: Literal["attributes"]
    name: Name
    version: PositiveInt
    description: str
    source: str
    dataset: Name
    parts: Parts
    train_per_part: int = Field(ge=2)  # half of them positive
    validation_per_part: int = Field(ge=2)

    @property
    def identifier(self) -> str:
        """Name and version: ``celeba@1``."""
        return f"{self.name}@{self.version}"


def names() -> list[str]:
    """Return the names of all protocols that are shipped."""
    return sorted(path.stem for path in shipped("protocols").glob("*.toml"))


def load(name: str) -> Protocol:
    """Return an expression protocol by name, or from a path ending in ``.toml``.

    Raises UsageError for an unknown name, DataError for a file that is not valid.
    """
    protocol = load_any(name)
    if isinstance(protocol, AttributeProtocol):
        others = ", ".join(other for other in names() if isinstance(load_any(other), Protocol))
        raise UsageError(
            f"{name} holds attributes, not expressions: it trains attention maps only; choose one of {others}"
        )
    return protocol


def load_attributes(name: str) -> AttributeProtocol:
    """Return an attribute protocol by name or path (see :func:`load`)."""
    protocol = load_any(name)
    if isinstance(protocol, Protocol):
        raise UsageError(f"{name} holds expressions; attention maps are learned from an attribute protocol")
    return protocol


def load_any(name: str) -> Protocol | AttributeProtocol:
    """Return a protocol of either kind."""
    path = Path(name) if name.endswith(".toml") else shipped("protocols") / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise UsageError(f"unknown protocol {name!r}{suggestion(name, names())}")
    content = read_toml(path)
    if content.get("kind") == "attributes":
        return validated(AttributeProtocol, content, path)
    return validated(Protocol, content, path)
