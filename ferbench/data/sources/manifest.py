"""Any other dataset: a CSV of path,label[,subject,sequence,frame,split] beside its images."""

from ferbench.data.archive import Tree, filename, reader
from ferbench.data.samples import Listing, Sample, as_is
from ferbench.data.sources import Options, tables
from ferbench.errors import DataError
from ferbench.labels import emotion

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def looks_like(paths: list[str]) -> bool:
    return any(path.lower().endswith(".csv") for path in paths)


def read(tree: Tree, options: Options) -> Listing:
    tabled = [path for path in tree.paths if path.lower().endswith(".csv")]
    path = next((path for path in tabled if filename(path).lower() == "manifest.csv"), tabled[0])
    if len(tabled) > 1 and filename(path).lower() != "manifest.csv":
        raise DataError(f"{tree.name} holds {len(tabled)} CSV files: give the manifest itself, or call it manifest.csv")
    base = path.rpartition("/")[0]
    samples = []
    for number, row in enumerate(tables.rows(tree, path, ("path", "label"))):
        where = f"{filename(path)}, row {number + 1}"
        image = f"{base}/{row['path']}".lstrip("/")
        if ".." in image.split("/") or row["path"].startswith("/"):
            raise DataError(f"{where}: {row['path']!r} leads out of the folder; paths are relative to the manifest")
        split = row.get("split", "").lower()
        if split and split not in _SPLITS:
            raise DataError(f"{where}: the split {split!r} is not one of train, val, test")
        frame = row.get("frame", "")
        if frame and not frame.lstrip("-").isdigit():
            raise DataError(f"{where}: the frame {frame!r} is not a whole number")
        samples.append(Sample(
            row["path"], image, as_is(reader(tree, image), image), emotion(row["label"]),
            row.get("subject", ""), row.get("sequence", ""), int(frame or -1), _SPLITS.get(split, ""),
        ))  # fmt: skip
    return Listing("manifest", samples)
