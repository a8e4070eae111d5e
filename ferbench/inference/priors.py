"""Stored scores adjusted to other prior probabilities of the classes, or to fewer classes. No label takes part.

A network trained on class shares π(k) gives p(k|x) ∝ p(x|k) π(k). Dividing by π(k) and scaling to a sum of 1 gives the
probabilities for equally frequent classes (post-hoc logit adjustment with τ = 1: Menon et al. 2021). For the shares
of a test set, these are estimated from its scores (Saerens, Latinne, Decaestecker 2002).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.errors import DataError, UsageError
from ferbench.protocol.protocol import Protocol
from ferbench.runs.record import Record
from ferbench.runs.store import Store, predictions_frame

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.inference.models import Model

TRAINING, UNIFORM, ESTIMATED = PRIORS = ("training", "uniform", "estimated")
MODEL, PROTOCOL = CLASSES = ("model", "protocol")
SOURCE = "predictions"  # the kind, among the parents of a run, of the run whose stored scores it adjusts
REVISION = 1  # raised when a change of code changes what is computed from the same scores
TOLERANCE = 1e-9  # of every estimated share: a smaller change ends the estimation
MOST_STEPS = 100_000  # of the estimation; shipped networks on public test sets take 32 to 209
_WORDS = {UNIFORM: "uniform prior", ESTIMATED: "prior estimated from the test images without labels"}


@dataclass(frozen=True)
class Adjustment:
    """What the scores of a model are adjusted to.

    prior : "training" as the model gives them, "uniform" for equally frequent classes, "estimated" for the shares of
    the test set. classes : "model" with all of its classes, "protocol" without those that the protocol lacks.
    Raises UsageError for another name.
    """

    prior: str = TRAINING
    classes: str = MODEL

    def __post_init__(self) -> None:
        for option, value, known in (("--prior", self.prior, PRIORS), ("--classes", self.classes, CLASSES)):
            if value not in known:
                raise UsageError(f"unknown {option} {value!r}: it is {', '.join(known[:-1])} or {known[-1]}")

    def of(self, classes: list[str], protocol: Protocol) -> Adjustment:
        """The same for a model with these classes: all of its classes where the protocol has them all."""
        return replace(self, classes=MODEL) if {*classes} <= {*protocol.classes} else self

    def kept(self, classes: list[str], protocol: Protocol) -> list[str]:
        """Those of a model's classes that may be predicted."""
        return [name for name in classes if self.classes == MODEL or name in protocol.classes]

    def changes(self, protocol: Protocol) -> list[str]:
        """What it changes, in words."""
        words = [_WORDS[self.prior]] if self.prior != TRAINING else []
        return words + ([f"classes of {protocol.identifier} only"] if self.classes == PROTOCOL else [])


AS_GIVEN = Adjustment()


def weighted(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return probabilities float64 [N,K] multiplied by weights [K] and scaled to a sum of 1 (Saerens et al. 2002,
    Eq. 2.4). Raises DataError where all that is left of a row is 0."""
    products = scores * weights
    sums = products.sum(axis=1, keepdims=True)
    if not sums.all():
        raise DataError(f"the scores of row {int(np.argmin(sums)) + 1} are 0 for all classes that remain")
    return products / sums


def estimated_shares(scores: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the class shares [K] of a test set, estimated from its scores, and the number of steps.

    scores : probabilities [N,K] for the class shares [K] of the training set. It is the algorithm of expectation and
    maximisation of Saerens et al. 2002, Eq. 2.9: the mean of the probabilities for the shares of the step before,
    beginning with those of the training set, until no share changes by more than :data:`TOLERANCE`.
    """
    estimate = shares
    for step in range(1, MOST_STEPS + 1):
        before, estimate = estimate, weighted(scores, estimate / shares).mean(axis=0)
        if np.abs(estimate - before).max() <= TOLERANCE:
            return estimate, step
    raise DataError(f"the class shares of the test set cannot be estimated: they still change after {MOST_STEPS} steps")


def trained_shares(adjustment: Adjustment, model: Model, protocol: Protocol) -> np.ndarray:
    """Return the shares, in what a model learned from, of the classes that an adjustment keeps, float64 [K]; equal ones
    where it keeps the prior of the training set, for which they are not needed.

    Raises UsageError for scores that are no probabilities, unknown shares, and a class that was not learned.
    """
    kept, facts = adjustment.kept(model.classes, protocol), model.facts()
    if adjustment != AS_GIVEN and facts.get("uncalibrated"):
        raise UsageError(f"the scores of {facts['display']} are no probabilities: they are taken as they are")
    if adjustment.prior == TRAINING:
        return np.full(len(kept), 1 / len(kept))
    labels = model.train_labels()
    if not labels:
        raise UsageError(f"how many images of each class {facts['display']} learned from is unknown: no other --prior")
    counts = np.array([labels.get(name, 0) for name in kept], dtype=np.float64)
    if not counts.all():
        raise UsageError(f"{facts['display']} has learned from no image of {kept[int(counts.argmin())]}")
    return counts / counts.sum()


def adjusted(
    source: Record, store: Store, adjustment: Adjustment, protocol: Protocol, shares: np.ndarray
) -> tuple[Record, pd.DataFrame]:
    """Return the record of adjusted scores, and its predictions. Nothing is stored yet.

    source : the record of the evaluation that has the scores. shares : see :func:`trained_shares`.
    """
    kept, samples = adjustment.kept(source.classes, protocol), store.predictions(source.key, source)
    scores = weighted(samples[[f"p_{name}" for name in kept]].to_numpy(dtype=np.float64), np.ones(len(kept)))
    facts: dict[str, Any] = {"prior": adjustment.prior, "classes": adjustment.classes}
    if adjustment.prior != TRAINING:
        wanted = np.full(len(kept), 1 / len(kept))
        if adjustment.prior == ESTIMATED:
            wanted, facts["steps"] = estimated_shares(scores, shares)
        facts |= {"shares_trained": _named(kept, shares), "shares_taken": _named(kept, wanted)}
        scores = weighted(scores, wanted / shares)
    recipe = source.identity.recipe | {"scores": {"prior": adjustment.prior, "classes": adjustment.classes}}
    parents = source.identity.parents | {SOURCE: source.key}
    identity = source.identity.model_copy(update={"recipe": recipe, "parents": parents, "code": REVISION})
    record = Record.of(
        identity,
        dataset=source.dataset,
        classes=kept,
        environment=source.environment,
        timings={},
        facts=source.facts | {"scores": facts, "changed": adjustment.changes(protocol)},
    )
    return record, predictions_frame(samples.rename(columns={"truth": "label"}), kept, scores)


def _named(classes: list[str], shares: np.ndarray) -> dict[str, float]:
    return {name: round(float(share), 6) for name, share in zip(classes, shares, strict=True)}
