"""Files of weights that a training starts from. Importing this loads no torch."""

from functools import lru_cache
from pathlib import Path

from ferbench.errors import UsageError
from ferbench.files import sha256_of_file

WEIGHTS = "model.safetensors"  # in the folders that timm writes


def weights_file(name: str, folder: Path | None) -> Path:
    """The file that a recipe's ``network.weights`` names.

    folder : that ``name`` is relative to, by default the current one. Raises UsageError for what is no such file.
    """
    path = (folder or Path()) / name
    path = path / WEIGHTS if path.is_dir() else path
    if path.suffix != ".safetensors" or not path.is_file():
        raise UsageError(f"network.weights: {path} is no safetensors file, nor a folder with {WEIGHTS}")
    return path


def digest(path: Path) -> str:
    """The SHA-256 of a file of weights, by which it is named in the identity of a run."""
    facts = path.stat()
    return _digest(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int, size: int) -> str:
    return sha256_of_file(path)
