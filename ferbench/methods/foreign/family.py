"""What somebody's model is to the rest of ferbench."""

from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.methods import modules
from ferbench.methods.foreign.packages import packaged
from ferbench.methods.foreign.recipe import FILES, Input, Model, Output, Recipe
from ferbench.methods.interface import FOLD, Family, Recogniser
from ferbench.methods.recipes import Method
from ferbench.methods.registry import is_module
from ferbench.protocol.protocol import Protocol

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
