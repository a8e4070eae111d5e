"""What somebody's model is to the rest of ferbench."""

from pathlib import Path
from typing import Any, ClassVar

from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.methods.foreign.recipe import Recipe
from ferbench.methods.interface import Family, Recogniser
from ferbench.methods.recipes import Method
from ferbench.protocol.protocol import Protocol


class ForeignFamily(Family):
    """Models from elsewhere. Tested as they are, or fitted on each fold where they can be."""

    recipe = Recipe
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.foreign.recogniser import Foreign

        return Foreign(method, classes)

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        """With the hash of the model's file, so that another model under the same name is another run."""
        content = method.recipe.model_dump()
        del content["trained"]  # what is known of a model changes nothing that it says
        return {**content, "file": sha256_of(file_of(method).read_bytes())[:16]}


def file_of(method: Method) -> Path:
    """Return the model's file: the ONNX file, or the file of the module that its source names.

    Raises DataError where there is none.
    """
    source = method.recipe.model.source
    if method.recipe.model.kind == "onnx":
        path = (method.folder or Path()) / source
        if not path.is_file():
            raise DataError(f"{path} does not exist: [model] source of the card of {method.title} names it")
        return path
    from ferbench.methods.foreign.recogniser import module_of

    return Path(str(module_of(source, method.folder).__file__))


FAMILY = ForeignFamily()
