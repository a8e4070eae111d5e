"""One reader for each dataset: paths in, a listing of samples out. All layouts are those of the wild."""

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol, cast

from ferbench.data.archive import Tree
from ferbench.data.samples import Listing
from ferbench.errors import UsageError
from ferbench.text import suggestion

NAMES = (
    "ckplus",
    "oulu",
    "rafdb",
    "celeba",
    "fer2013",
    "ferplus",
    "affectnet",
    "expw",
    "sfew",
    "jaffe",
    "kdef",
    "manifest",
)


@dataclass(frozen=True)
class Options:
    """Options of the readers; each reader takes those that concern it."""

    camera: Literal["VL", "NI"] = "VL"  # Oulu: visible light or near infrared
    lighting: Literal["Strong", "Weak", "Dark"] = "Strong"  # Oulu
    # CK+: each frame by its own landmarks, or all by the first frame's. Sets that come cropped: by O-Net's.
    align: Literal["frame", "sequence", "onet"] = "frame"
    ferplus: Path | None = None  # FER2013: fer2013new.csv with the FERPlus votes
    labels: str = ""  # manifest: "0=neutral,1=happiness,8=-": what its labels mean; - leaves such rows out


class Reader(Protocol):
    """A module of this room."""

    def looks_like(self, tree: Tree) -> bool:
        """Say whether this could be the dataset, in any of its layouts, by its paths or how its tables begin."""
        ...

    def read(self, tree: Tree, options: Options) -> Listing:
        """List the dataset's samples. Raises DataError for what is missing or contradicts itself."""
        ...


def named(dataset: str) -> Reader:
    """Return the reader of a dataset; UsageError with the nearest name for an unknown one."""
    if dataset not in NAMES:
        raise UsageError(
            f"unknown dataset {dataset!r}{suggestion(dataset, NAMES)}; any other dataset needs a CSV: "
            "`ferbench data prepare manifest FILE.csv`"
        )
    return cast(Reader, import_module(f"{__name__}.{dataset}"))


def mistaken(dataset: str, tree: Tree) -> str:
    """Say in one line why ``tree`` is not ``dataset``, and which dataset it looks like instead."""
    others = [name for name in NAMES if name not in (dataset, "manifest") and named(name).looks_like(tree)]
    if others:
        return f"{tree.name} looks like {others[0]}, not {dataset}: `ferbench data prepare {others[0]} {tree.name}`"
    some = ", ".join(tree.paths[:2]) or "nothing"
    what = "has no CSV file" if dataset == "manifest" else f"does not look like {dataset} in any known layout"
    return (
        f"{tree.name} {what} (it holds {some} …): for images in another layout write a manifest.csv beside them, with "
        "the columns path,label and, where known, subject,sequence,frame,split; then run "
        f"`ferbench data prepare manifest {tree.name} --name NAME`"
    )
