"""Oulu-CASIA NIR&VIS (Zhao et al. 2011): original images and the preprocessed crops."""

import re
from collections import defaultdict

from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, as_is, raw
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import OULU

# …/{VL,NI}[_Acropped]/{Strong,Weak,Dark}/P001/Anger/000.jpeg, whatever the folders above are called.
_FRAME = re.compile(
    r"(?:^|/)(?P<camera>VL|NI)(?P<crop>_Acropped)?/(?P<lighting>Strong|Weak|Dark)/(?P<subject>P\d{3})/"
    r"(?P<label>[A-Za-z]+)/(?P<frame>\d{1,9})" + IMAGE
)
LAST = 3  # frames of each sequence (Zhang et al. 2020, IV-A-3)
SUBJECTS = 80  # in each camera and lighting, six expressions each


def looks_like(tree: Tree) -> bool:
    return any(_FRAME.search(path) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    matches = {path: match for path in tree.paths if (match := _FRAME.search(path))}
    chosen = {
        path: match
        for path, match in matches.items()
        if (match["camera"], match["lighting"]) == (options.camera, options.lighting)
    }
    if not chosen:
        there = sorted({f"--camera {m['camera']} --lighting {m['lighting']}" for m in matches.values()})
        raise DataError(
            f"{tree.name} has no images of --camera {options.camera} --lighting {options.lighting}; "
            f"it has {'; '.join(there)}"
        )
    crops = {path: match for path, match in chosen.items() if match["crop"]}
    if crops and len(crops) < len(chosen):
        raise DataError(f"{tree.name} holds both original and preprocessed images: give one of the two folders")
    sequences: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for path, match in chosen.items():
        if match["label"] not in OULU:
            raise DataError(f"{path}: {match['label']!r} is no expression of Oulu-CASIA ({', '.join(OULU)})")
        sequences[match["subject"], match["label"]][int(match["frame"])] = path
    samples, notes = [], []
    for (subject, label), frames in sorted(sequences.items()):
        numbers = sorted(frames)
        last = numbers[-LAST:]
        if len(last) < LAST or last[-1] - last[0] != LAST - 1:
            notes.append(f"sequence {subject} {label}: the last frames {last} are not {LAST} in a row")
        for number in numbers:
            path = frames[number]
            face = (as_is if crops else raw)(tree, path)
            sequence = f"{subject}_{label}"
            samples.append(
                Sample(f"{sequence}_{stem(filename(path))}", path, face, OULU[label], subject, sequence, number)
            )
    cells = SUBJECTS * len(OULU)
    if len(sequences) != cells:
        missing = [
            f"P{s:03d} {label}"
            for s in range(1, SUBJECTS + 1)
            for label in OULU
            if (f"P{s:03d}", label) not in sequences
        ]
        notes.append(f"{len(sequences)} sequences found, {cells} expected; missing such as {', '.join(missing[:3])}")
    return Listing(
        "preprocessed (Acropped)" if crops else "original images",
        samples,
        {"camera": options.camera, "lighting": options.lighting},
        {"sequences": dict.fromkeys(sorted(OULU.values()), SUBJECTS)},
        tuple(notes),
        dict.fromkeys(matches.keys() - chosen.keys(), "they are of another --camera or --lighting"),
    )
