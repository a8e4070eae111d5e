"""JAFFE (Lyons et al. 1998): 213 images of 10 subjects. The name of a file gives its subject and expression."""

import re

from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, raw
from ferbench.data.sources import Options
from ferbench.labels import JAFFE

# KA.AN1.39.tiff; conversions also write KA-AN1.39.jpg.
_IMAGE = re.compile(r"^([A-Z]{2})[.-](AN|DI|FE|HA|NE|SA|SU)\d*\.\d+" + IMAGE)
IMAGES, SUBJECTS = 213, 10


def looks_like(tree: Tree) -> bool:
    return any(_IMAGE.match(filename(path)) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    samples = [
        Sample(stem(path), path, raw(tree, path), JAFFE[match[2]], match[1])
        for path in sorted(tree.paths, key=filename)
        if (match := _IMAGE.match(filename(path)))
    ]
    notes = [f"{len(samples)} images found, {IMAGES} expected"] if len(samples) != IMAGES else []
    return Listing("images named by subject and expression", samples, {}, {}, tuple(notes))
