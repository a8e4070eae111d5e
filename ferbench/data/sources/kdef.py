"""KDEF (Lundqvist, Flykt, Öhman 1998): 70 subjects × 7 expressions × 2 sessions, frontal view."""

import re

from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, raw
from ferbench.data.sources import Options
from ferbench.labels import KDEF

# AF01ANS.JPG: session A or B, sex and number of the subject, expression, angle (S = straight).
_IMAGE = re.compile(r"^([AB])([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)(S|HL|HR|FL|FR)" + IMAGE, re.IGNORECASE)
_EXPECTED = {"class": dict.fromkeys(sorted(set(KDEF.values())), 140)}  # 70 subjects, 2 sessions


def looks_like(tree: Tree) -> bool:
    return any(_IMAGE.match(filename(path)) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    samples, left_out = [], {}
    for path in sorted(tree.paths, key=filename):
        match = _IMAGE.match(filename(path))
        if match and match[4].upper() != "S":
            left_out[path] = "they do not show the straight view"
        elif match:
            # Sessions A and B show the same person: the subject is F01, not AF01.
            samples.append(Sample(stem(path).upper(), path, raw(tree, path), KDEF[match[3].upper()], match[2].upper()))
    return Listing("images named by subject, straight view", samples, {"angle": "S"}, _EXPECTED, (), left_out)
