"""Was a model trained on the test images? Evidence from its own predictions, never a proof.

FER2013's labels are noisy: people agree with 65 ± 5 % of them (Goodfellow et al. 2013, section 3). A model that learned
nothing of the test images cannot do much better there than the labels allow, however many training images it has
memorised; one that does, *and* does no better on its training images, answers test images as it answers what it
learned. Each of both alone is no evidence: a small network has no gap at a low level, and a large one that memorised
the training images is far above its test accuracy.
"""

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from ferbench.errors import DataError
from ferbench.execution.views import TestSet
from ferbench.files import data_home
from ferbench.inference.models import Model, open_model
from ferbench.methods.foreign.cards import shipped_cards
from ferbench.methods.interface import PRETRAIN
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.leakage import overlap
from ferbench.runs.store import shipped_with
from ferbench.seeds import generator
from ferbench.training.arithmetic import FP32, Arithmetic

AGREEMENT = {"fer2013": (0.65, 0.05)}  # share of labels that people agree with, and its deviation
DEVIATIONS = 2  # of it, above the mean: what an unbiased test accuracy is not expected to pass
GAP = 0.05  # training over test accuracy: below this, one that high is not explained by memorised training images
SAMPLE = 2000  # training images that are predicted, drawn by a fixed seed


@dataclass(frozen=True)
class Evidence:
    """The result. consistent : with having learned from the test images; None: this dataset allows no conclusion.

    trained, tested : accuracy on a sample of the training split and on the test set, of so many images. ceiling : of
    an unbiased test accuracy. near : test images that are training images too, or near copies of one. repeated,
    single : mean confidence on those, and on the others.
    """

    title: str
    consistent: bool | None
    sentence: str
    trained: float
    train_images: int
    tested: float
    test_images: int
    ceiling: float | None
    near: int
    repeated: float
    single: float


def contamination(
    name: str,
    preset: str,
    dataset: str,
    runs: Path | None,
    home: Path | None,
    arithmetic: Arithmetic = FP32,
    trained_on: str = "",
) -> Evidence:
    """Test a model on the training set and on the test set of a protocol with an official split.

    name, preset, arithmetic, trained_on : of a model, as :func:`~ferbench.inference.models.open_model` finds it.
    Raises DataError for a protocol of folds or a dataset without both.
    """
    model = open_model(name, preset, runs, protocols.load(dataset).name, arithmetic=arithmetic, trained_on=trained_on)
    test_set = TestSet.of(dataset, home)
    train = _train_rows(test_set)
    sample = np.sort(generator(0, "contamination").permutation(train)[:SAMPLE])
    trained, train_count, _ = _test(model, test_set.with_rows(sample))
    tested, test_count, confidence = _test(model, test_set)
    accuracies = trained, train_count, tested, test_count
    ceiling = ceiling_of(test_set.protocol.dataset)
    seen = overlap(train, test_set.rows, test_set.faces).seen
    copies = test_set.table["id"].isin(seen).to_numpy()
    repeated = float(confidence[copies].mean()) if copies.any() else float("nan")
    single = float(confidence[~copies].mean())
    evidence = conclusion(*accuracies, ceiling)
    return Evidence(model.title, *evidence, *accuracies, ceiling, int(copies.sum()), repeated, single)


def learned_by(name: str, dataset: str, runs: Path | None, home: Path | None) -> list[dict[str, str]]:
    """Say of each network and card that comes with ferbench, or of the model ``name``, what it learned from and whether
    the test set of a protocol was held out from that: a row each. Nothing is predicted."""
    test_set = TestSet.of(dataset, home)
    names = [name] if name else [*(record.key for record in shipped_with(kind=PRETRAIN)), *shipped_cards()]
    rows = []
    for each in names:
        model = open_model(each, "", runs, test_set.protocol.name, data_home(home))
        held_out, _ = model.held_out(test_set)
        why = f" ({held_out.why})" if held_out.why else ""
        rows.append({"model": model.description, "learned from": model.learned_from() + why, "held out": str(held_out)})
    return rows


def ceiling_of(dataset: str) -> float | None:
    """The test accuracy that noisy labels allow without leakage, where people's agreement is known."""
    agreement = AGREEMENT.get(dataset)
    return None if agreement is None else agreement[0] + DEVIATIONS * agreement[1]


def conclusion(
    trained: float, train_images: int, tested: float, test_images: int, ceiling: float | None
) -> tuple[bool | None, str]:
    """Say what two accuracies are consistent with.

    The test accuracy has to pass the ceiling by more than chance (its 95 % binomial bound), and the training accuracy
    must not stand above it by more than :data:`GAP`.
    """
    if ceiling is None:
        return None, "people's agreement with the labels of this dataset is unknown, so no accuracy is too high"
    bound = tested - 1.96 * sqrt(tested * (1 - tested) / test_images)
    above, flat = bound > ceiling, trained - tested < GAP
    figures = f"{tested:.1%} of {test_images:,} test images, {trained:.1%} of {train_images:,} training images"
    if above and flat:
        return True, (
            f"consistent with having learned from the test images: {figures}; people agree with less of the "
            f"labels ({ceiling:.0%} at most), and accuracy on training images is no higher"
        )
    if above:
        return False, (
            f"high for these labels ({figures}), but accuracy on training images is much higher, as of a "
            "model that has memorised those alone"
        )
    return False, f"no sign of it: {figures}; labels as noisy as these allow up to {ceiling:.0%}"


def _train_rows(test_set: TestSet) -> np.ndarray:
    if test_set.protocol.official is None:
        raise DataError(f"{test_set.protocol.identifier} has folds: choose a protocol with an official training split")
    return splits.training_sets(test_set.protocol, test_set.faces)[0]


def _test(model: Model, test_set: TestSet) -> tuple[float, int, np.ndarray]:
    """Accuracy on the samples whose class the model has, how many they are, and the confidence on all samples."""
    probabilities = model.test(test_set)
    labels = test_set.table["label"].to_numpy()
    known = np.isin(labels, model.classes)
    predicted = np.array(model.classes)[probabilities.argmax(axis=1)]
    return float((predicted == labels)[known].mean()), int(known.sum()), probabilities.max(axis=1)
