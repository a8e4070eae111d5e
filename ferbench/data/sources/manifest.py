"""Any other dataset: a CSV of path,label[,subject,sequence,frame,split] beside its images."""

from pathlib import PurePosixPath

from ferbench.data import archive
from ferbench.data.archive import Tree, filename, is_image
from ferbench.data.samples import Listing, Sample, as_is
from ferbench.data.sources import Options
from ferbench.errors import DataError, UsageError
from ferbench.labels import emotion

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NEEDED, _OPTIONAL = ("path", "label"), ("subject", "sequence", "frame", "split")
_LEFT_OUT = "-"


def looks_like(tree: Tree) -> bool:
    return any(path.lower().endswith(".csv") for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    tabled = [path for path in tree.paths if path.lower().endswith(".csv")]
    path = next((path for path in tabled if filename(path).lower() == "manifest.csv"), tabled[0])
    if len(tabled) > 1 and filename(path).lower() != "manifest.csv":
        raise DataError(f"{tree.name} holds {len(tabled)} CSV files: give the manifest itself, or call it manifest.csv")
    meanings, base = meant(options.labels), path.rpartition("/")[0]
    samples: list[Sample] = []
    left, left_out = 0, dict.fromkeys(filter(is_image, tree.paths), "the manifest does not name them")
    for row in archive.rows(tree, path, _NEEDED, _OPTIONAL):
        # Windows writes \ between folders; as part of a name it does not come up.
        given = row["path"].replace("\\", "/")
        if ".." in given.split("/") or given.startswith("/") or given[1:2] == ":":
            raise DataError(
                f"{row.where}: {row['path'][:80]!r} leads out of the folder; paths are relative to the manifest"
            )
        image = PurePosixPath(base, given).as_posix()
        label = _label(row, meanings)
        if label == _LEFT_OUT:
            left += 1
            left_out[image] = "--labels leaves their rows out"
            continue
        split = row.get("split", "").lower()
        if split and split not in _SPLITS:
            raise DataError(f"{row.where}: the split {split[:20]!r} is not one of train, val, test")
        frame = archive.whole(row.get("frame", "") or "-1")
        if frame is None:
            raise DataError(f"{row.where}: the frame {row['frame'][:20]!r} is not a whole number")
        samples.append(
            Sample(
                row["path"],
                image,
                as_is(tree, image),
                label,
                row.get("subject", ""),
                row.get("sequence", ""),
                frame,
                _SPLITS.get(split, ""),
            )
        )
    if left and not samples:
        raise DataError(f"{path}: --labels leaves out every row")
    notes = [f"{left:,} rows are left out by --labels"] if left else []
    said = {"labels": options.labels} if options.labels else {}
    return Listing("manifest", samples, said, {}, tuple(notes), left_out)


def meant(labels: str) -> dict[str, str]:
    """Return what labels mean by ``0=neutral,1=happiness,8=-``; "-" where rows are left out. Raises UsageError."""
    meanings: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in labels.split(","))):
        given, sign, name = (part.strip() for part in pair.partition("="))
        if not given or not sign or not name:
            raise UsageError(f"--labels {pair!r} should be like 0=neutral, or 8=- for what is left out")
        if (key := _key(given)) in meanings:
            raise UsageError(f"--labels says twice what {given!r} means")
        try:
            meanings[key] = name if name == _LEFT_OUT else emotion(name)
        except DataError as error:
            raise UsageError(f"--labels {pair!r}: {error}") from None
    return meanings


def _key(label: str) -> str:
    """Numbers are compared as numbers (``3.0`` is 3), words without case."""
    number = archive.whole(label)
    return label.lower() if number is None else str(number)


def _label(row: archive.Row, meanings: dict[str, str]) -> str:
    label = row["label"]
    if (known := meanings.get(_key(label))) is not None:
        return known
    if archive.whole(label) is not None:
        raise DataError(
            f"{row.where}: the label {label} is a number: say what each means, such as "
            "--labels '0=neutral,1=happiness' (8=- leaves out)"
        )
    try:
        return emotion(label)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None
