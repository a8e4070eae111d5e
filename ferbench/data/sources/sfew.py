"""SFEW 2.0 (Dhall et al. 2015): frames of films in a folder for each expression, as they are or with aligned faces."""

import re

from ferbench.data.archive import IMAGE, Tree, stem
from ferbench.data.samples import Listing, Sample, as_is, raw
from ferbench.data.sources import Options
from ferbench.labels import SFEW

_SPLITS = {"Train": "train", "Val": "val"}
# Train/Angry/x.png, Train_Aligned_Faces/Angry/x.png, Train/Train_Aligned_Faces/Angry/x.png.
_IMAGE = re.compile(
    r"(?:^|/)(?P<split>Train|Val)(?P<aligned>_Aligned_Faces(?:_new)?)?/(?P<label>" + "|".join(SFEW) + r")/[^/]+" + IMAGE
)
_TEST = re.compile(r"(?:^|/)Test(?:_Aligned_Faces)?(?:_new)?/[^/]+" + IMAGE)
# Aligned faces and whole frames, training and validation together; faces that were not found are missing in the first.
_EXPECTED = {
    True: {
        "class": {
            "anger": 243,
            "disgust": 73,
            "fear": 122,
            "happiness": 241,
            "sadness": 218,
            "surprise": 147,
            "neutral": 223,
        },
        "split": {"train": 857, "val": 410},
    },
    False: {
        "class": {
            "anger": 255,
            "disgust": 75,
            "fear": 124,
            "happiness": 256,
            "sadness": 234,
            "surprise": 150,
            "neutral": 228,
        },
        "split": {"train": 891, "val": 431},
    },
}


def looks_like(tree: Tree) -> bool:
    return any(_IMAGE.search(path) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    matches = {path: match for path in tree.paths if (match := _IMAGE.search(path))}
    aligned = any(match["aligned"] for match in matches.values())
    samples = [
        Sample(
            f"{_SPLITS[match['split']]}-{stem(path)}",
            path,
            (as_is if aligned else raw)(tree, path),
            SFEW[match["label"]],
            split=_SPLITS[match["split"]],
        )
        for path, match in matches.items()
        if bool(match["aligned"]) == aligned
    ]
    samples.sort(key=lambda sample: sample.id)
    note = "SFEW names no subjects, though the faces of one film may be those of one actor"
    left_out = {path: "test images, which have no labels" for path in tree.paths if _TEST.search(path)}
    left_out |= {path: "their aligned faces are used" for path, match in matches.items() if not match["aligned"]}
    layout = "aligned faces by expression" if aligned else "whole frames by expression"
    return Listing(layout, samples, {}, _EXPECTED[aligned], (note,), left_out)
