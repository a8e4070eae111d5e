"""Folds by image: they leak subjects, and are made to measure how much this inflates accuracy, never for a result.

Images are drawn regardless of whose they are, so frames of one sequence are trained on and tested. Neither a
protocol file nor ``--rule`` leads here, only ``ferbench ablate --leakage``; every run carries the mark
in its protocol's name (``ckplus@1+image-folds``).
"""

import numpy as np

from ferbench.data.faces import Faces
from ferbench.errors import UsageError
from ferbench.files import sha256_of
from ferbench.protocol import splits
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.rules import rare_classes
from ferbench.protocol.splits import Split, Splits
from ferbench.runs.record import IMAGE_FOLDS
from ferbench.seeds import derive_seed


def make(protocol: Protocol, faces: Faces) -> Splits:
    """Return as many folds as ``protocol`` has, its images shuffled and stratified: the same for every seed.

    That each image is tested exactly once, and not trained on in its own fold, is asserted here too.
    Raises UsageError where there are no folds or no class has an image for each.
    """
    from sklearn.model_selection import StratifiedKFold

    if protocol.folds is None:
        raise UsageError(f"{protocol.identifier} has an official split, not folds: there is no leakage to measure")
    rows, count = splits.select(protocol, faces), protocol.folds.count
    ordered = rows[np.argsort(faces.samples["id"].iloc[rows].to_numpy(), kind="stable")]  # not as they lie on disk
    labels = faces.samples["label"].iloc[ordered]
    if labels.value_counts().max() < count:
        raise UsageError(f"no class has {count} images: too few to stratify {count} folds")
    folder = StratifiedKFold(count, shuffle=True, random_state=derive_seed(0, "image folds") % 2**32)
    with rare_classes():
        folds = tuple(
            Split(f"{number + 1:02d}", np.sort(ordered[train]), np.sort(ordered[test]))
            for number, (train, test) in enumerate(folder.split(ordered, labels))
        )
    splits.check_images(folds)
    splits.check_tested_once(folds, faces, rows)
    return Splits(
        protocol.identifier + IMAGE_FOLDS,
        f"image, {count} folds by image: subjects are in training and test sets",
        folds,
        protocol.classes,
        faces.name,
        faces.fingerprint,
        sha256_of(splits.to_csv(folds, faces).encode()),
        tuple(splits.notes(protocol, faces, rows)),
    )
