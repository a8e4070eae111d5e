"""Stored scores adjusted to other priors and to fewer classes, against float64 formulas and through the command."""

import json

import numpy as np
import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people

from ferbench.errors import DataError, UsageError
from ferbench.execution import learned
from ferbench.inference.evaluate import evaluate
from ferbench.inference.priors import Adjustment, estimated_shares, weighted
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import Store, shipped_runs

LABELS = ["anger", "happiness", "sadness"]
NETWORK = "68eca49ffa356cdd"  # of FER2013's seven classes, neutral among them, which JAFFE has and CK+ lacks
TINY = ("", "tiny")


def scores_of(rng: np.random.Generator, trained: np.ndarray, count: int, shares: np.ndarray) -> np.ndarray:
    """Exact posteriors float64 [count,K] for the shares ``trained``, of normal samples drawn with other shares."""
    truth = rng.choice(len(shares), size=count, p=shares)
    x = rng.normal(1.5 * truth, 1.0)
    joint = trained * np.exp(-0.5 * (x[:, None] - 1.5 * np.arange(len(shares))) ** 2)
    return joint / joint.sum(axis=1, keepdims=True)


def saerens(scores: np.ndarray, trained: np.ndarray, steps: int) -> np.ndarray:
    """Saerens, Latinne & Decaestecker 2002, Eq. 2.9, one sum at a time."""
    estimate = [float(share) for share in trained]
    for _ in range(steps):
        sums = [0.0] * len(estimate)
        for row in scores.tolist():
            joint = [new / old * p for new, old, p in zip(estimate, trained.tolist(), row, strict=True)]
            sums = [total + part / sum(joint) for total, part in zip(sums, joint, strict=True)]
        estimate = [total / len(scores) for total in sums]
    return np.array(estimate)


def test_the_shares_of_a_test_set_are_those_of_saerens_and_close_to_the_true_ones():
    rng, trained, true = np.random.default_rng(0), np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    scores = scores_of(rng, trained, 4000, true)
    few = scores[:200]
    shares, steps = estimated_shares(few, trained)
    np.testing.assert_allclose(shares, saerens(few, trained, steps), rtol=1e-10)
    shares, _ = estimated_shares(scores, trained)
    np.testing.assert_allclose(shares, true, atol=0.03)
    np.testing.assert_allclose(weighted(scores, shares / trained).mean(axis=0), shares, atol=1e-8)  # it is at rest
    assert shares.sum() == pytest.approx(1)


def test_dividing_by_the_training_shares_undoes_them():
    rng, trained = np.random.default_rng(1), np.array([0.7, 0.2, 0.1])
    scores = scores_of(rng, trained, 50, np.full(3, 1 / 3))
    uniform = np.array([[p / share for p, share in zip(row, trained, strict=True)] for row in scores])
    uniform /= uniform.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(weighted(scores, 1 / trained), uniform, rtol=1e-12)
    logits = np.log(scores) - np.log(trained)  # Menon et al. 2021: the logits less the logarithm of the prior
    np.testing.assert_array_equal(weighted(scores, 1 / trained).argmax(axis=1), logits.argmax(axis=1))


def test_a_row_of_which_nothing_is_left_is_refused():
    with pytest.raises(DataError, match="row 2 are 0"):
        weighted(np.array([[0.5, 0.5], [0.0, 0.0]]), np.ones(2))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with a dataset of three classes under CK+'s protocol, and under JAFFE's, which has neutral too."""
    folder = tmp_path_factory.mktemp("priors")
    for name in ("ckplus", "jaffe"):
        lay_down(make_faces(people(10, LABELS, frames=1), name=name), folder / "data")
    return folder


def told(home, *words: str, code: int = 0) -> dict:
    done = ferbench("evaluate", "--trained-on", "fer2013", *words, "--format", "json", cwd=home, code=code)
    return json.loads(done.stdout)


def stored(home, dataset: str = "ckplus", **adjustment: str):
    return evaluate(
        *TINY, dataset, home / "runs", home / "data", trained_on=("fer2013",), adjustment=Adjustment(**adjustment)
    )


@pytest.mark.parametrize("classes", ["model", "protocol"])
@pytest.mark.parametrize("prior", ["training", "uniform", "estimated"])
def test_the_command_stores_each_adjustment_as_a_run_made_of_the_stored_scores(home, prior, classes):
    usual = stored(home)
    words = ["-d", "ckplus", "--prior", prior, "--classes", classes]
    (title, facts), *_ = told(home, *words).items()
    store, key = Store(home / "runs"), title.split()[1].rstrip(":")
    record, frame = store.record(key), store.predictions(key)
    counts = shipped_runs().record(NETWORK).facts["train_labels"]
    kept = [name for name in counts if classes == "model" or name != "neutral"]
    given = store.predictions(usual.key)[[f"p_{name}" for name in kept]].to_numpy(dtype=np.float64)
    given /= given.sum(axis=1, keepdims=True)
    trained = np.array([counts[name] for name in kept], dtype=np.float64)
    trained /= trained.sum()
    taken = {"training": trained, "uniform": np.full(len(kept), 1 / len(kept))}.get(prior)
    if taken is None:
        taken = saerens(given, trained, record.facts["scores"]["steps"])
    expected = given / trained * taken
    expected /= expected.sum(axis=1, keepdims=True)
    assert record.classes == kept
    np.testing.assert_allclose(frame[[f"p_{name}" for name in kept]], expected, rtol=1e-6)
    assert list(frame["prediction"]) == [kept[place] for place in expected.argmax(axis=1)]
    assert facts["accuracy"] == f"{(frame['prediction'] == frame['truth']).mean():.2%}"
    if (prior, classes) == ("training", "model"):
        assert key == usual.key
    else:
        assert record.identity.parents == {"network": NETWORK, "predictions": usual.key}
        assert key != usual.key
        assert store.damage(key) == ""


def test_the_report_says_how_scores_were_adjusted_and_from_which_run_they_are(home):
    stored(home)
    report = ["report", "--dataset", "ckplus", "--format", "markdown"]
    (home / "alone").mkdir()
    evaluate(*TINY, "ckplus", home / "alone", home / "data", trained_on=("fer2013",))
    assert "| Scores " not in ferbench(*report, "--runs", str(home / "alone"), cwd=home).stdout
    usual, read = stored(home), stored(home, prior="estimated", classes="protocol")
    shown = ferbench(*report, cwd=home).stdout
    assert "| Scores " in shown
    words = "prior estimated from the test images without labels, classes of ckplus@1 only"
    assert f"{words}; of run {usual.key}" in shown
    (both,) = json.loads(ferbench(*report[:-1], "json", cwd=home).stdout)
    sources = {row["run"]: row["source"] for row in both["transfers"]}
    assert (sources[read.key], sources[usual.key]) == (usual.key, "")
    assert next(iter(sources)) == usual.key  # what is made of its scores stands below it


def test_all_classes_of_the_model_are_the_same_run_where_the_protocol_has_them_all(home):
    assert {*shipped_runs().record(NETWORK).classes} <= {*protocols.load("jaffe").classes}
    assert stored(home, "jaffe", classes="protocol").key == stored(home, "jaffe").key


def test_scores_are_adjusted_anew_where_they_were_tested_anew(home):
    """An adjustment is of the scores that are stored now."""
    usual, read = stored(home), stored(home, prior="uniform")
    store = Store(home / "runs")
    frame = store.predictions(usual.key)
    columns = [f"p_{name}" for name in usual.classes]
    frame[columns] = frame[columns].to_numpy()[::-1]
    store.write_predictions(usual.key, frame)
    store.finish(usual)
    again = stored(home, prior="uniform")
    assert again.key == read.key
    assert not store.predictions(read.key).equals(frame)
    np.testing.assert_allclose(
        store.predictions(again.key)[columns].to_numpy(),
        weighted(
            frame[columns].to_numpy(), 1 / np.array([*shipped_runs().record(NETWORK).facts["train_labels"].values()])
        ),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prior", "flat"], "unknown --prior 'flat': it is training, uniform or estimated"),
        (["--classes", "all"], "unknown --classes 'all': it is model or protocol"),
        (["pipes:model", "--refit", "--prior", "uniform"], "--prior and --classes go without --refit"),
        (["--predictions", "theirs.csv", "--prior", "uniform"], "learned from is unknown: no other --prior"),
        (["--predictions", "decided.csv", "--classes", "protocol"], "are no probabilities"),
    ],
)
def test_what_cannot_be_adjusted_is_refused_before_anything_is_stored(home, tmp_path, words, said):
    ids = make_faces(people(10, LABELS, frames=1), name="ckplus").samples["id"]
    rows = {"theirs.csv": ("id,p_anger,p_neutral", ",0.25,0.75"), "decided.csv": ("id,prediction", ",neutral")}
    for name, (head, row) in rows.items():
        (home / name).write_text("\n".join([head, *(f"{one}{row}" for one in ids)]) + "\n")
    place = ("--runs", str(tmp_path / "runs"))
    done = ferbench("evaluate", *words, "-d", "ckplus", *place, cwd=home, code=2)
    assert said in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("runs/*/record.json"))


def test_predictions_of_another_program_are_read_among_the_classes_of_the_protocol(home):
    ids = make_faces(people(10, LABELS, frames=1), name="ckplus").samples["id"]
    rows = "".join(f"{one},0.3,0.1,0.6\n" for one in ids)
    (home / "three.csv").write_text(f"id,p_anger,p_sadness,p_neutral\n{rows}")
    words = ("evaluate", "--predictions", "three.csv", "-d", "ckplus", "--classes", "protocol", "--format", "json")
    (facts,) = json.loads(ferbench(*words, cwd=home).stdout).values()
    assert facts["accuracy"] == "50.00%"  # anger and sadness are left of three classes, and all are called anger


def test_a_training_counts_what_it_learned_from_by_class(home):
    train = ("train", "largest-class", "-d", "ckplus", "--preset", "tiny", "--folds", "01", "--jobs", "1")
    ferbench(*train, cwd=home)
    (record,) = (one for one in Store(home / "runs").records() if one.identity.kind == "fold")
    counts = record.facts["train_labels"]
    assert list(counts) == record.classes
    assert sum(counts.values()) == record.facts["train_images"]
    assert {name for name, count in counts.items() if count} == {*LABELS}
    done = ferbench("evaluate", record.key, "-d", "jaffe", "--prior", "uniform", cwd=home, code=2)
    assert "has learned from no image of contempt" in done.stderr


def test_class_counts_of_a_run_that_did_not_store_them_are_found_in_the_dataset(tmp_path):
    rows = [{"label": label, "split": "train", "id": f"t{n}"} for n, label in enumerate(["anger"] * 3 + ["fear"])]
    faces = make_faces([*rows, {"label": "fear", "split": "val", "id": "v"}], name="fer2013")
    lay_down(faces, tmp_path)
    record = shipped_runs().record(NETWORK)
    assert learned.train_labels(record, None) == record.facts["train_labels"]
    facts = {name: fact for name, fact in record.facts.items() if name != "train_labels"}
    identity = record.identity.model_copy(update={"data": faces.fingerprint})
    silent = record.model_copy(update={"facts": facts, "identity": identity})
    assert learned.train_labels(silent, None) == {}
    assert learned.train_labels(silent, tmp_path) == dict.fromkeys(record.classes, 0) | {"anger": 3, "fear": 1}
    with pytest.raises(UsageError, match="unknown --prior"):
        Adjustment("flat")
