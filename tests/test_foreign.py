"""Models from elsewhere: cards, the form that a model takes faces in, folds, zero-shot, given predictions, the API."""

import doctest
import json
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.models import card, onnx_file

from ferbench import api
from ferbench.data import faces as prepared_sets
from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of
from ferbench.inference import evaluate, predict
from ferbench.inference.contamination import GAP, ceiling_of, conclusion
from ferbench.inference.models import check_samples, open_model
from ferbench.methods.foreign import Card, Input, files
from ferbench.methods.foreign.cards import card_beside, template
from ferbench.methods.foreign.recogniser import ExternalModel, prepared
from ferbench.methods.interface import SampleSet, Video
from ferbench.methods.recipes import resolve
from ferbench.runs.store import Store

EMOTIONS = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]
ROWS = people(10, EMOTIONS, frames=3)
PIPELINE = """
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.linear_model import LogisticRegression
pipeline = make_pipeline(PCA(8, random_state=0), LogisticRegression(max_iter=200))
margins = LinearSVC(random_state=0)
"""
CALLABLE = """
import numpy as np
import torch
def first_pixels(faces):
    return torch.from_numpy(faces[:, 0, 0, :7] * 4)
def nothing(faces):
    return np.full((len(faces), 7), np.nan)
"""


@pytest.fixture
def place(tmp_path):
    lay_down(make_faces(ROWS, name="ckplus"), tmp_path / "data")
    (tmp_path / "pipes.py").write_text(PIPELINE)
    (tmp_path / "nets.py").write_text(CALLABLE)
    return tmp_path


def test_faces_take_the_form_of_the_card():
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48)).astype(np.uint8)
    x = images / 255
    np.testing.assert_allclose(prepared(images, Input()), x[:, None], rtol=1e-6)
    np.testing.assert_allclose(
        prepared(images, Input(scale="-1..1", layout="flat")), (2 * x - 1).reshape(2, -1), atol=1e-6
    )
    rgb = prepared(images, Input(colour="rgb", layout="nhwc", scale="0..255", mean=(1, 2, 3), deviation=(2.0,)))
    assert rgb.shape == (2, 48, 48, 3)
    for channel in range(3):
        np.testing.assert_allclose(rgb[..., channel], (images - (channel + 1.0)) / 2, rtol=1e-6)
    assert prepared(images, Input(size=64, layout="nhw")).shape == (2, 64, 64)


def test_scores_are_read_by_the_card_s_labels(place):
    weights = onnx_file(place / "rows.onnx")
    method = resolve(str(card(place, "rows", source="rows.onnx", kind="onnx")), "", "ckplus")
    images = np.random.default_rng(1).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    classes = ("anger", "fear", "neutral")
    found = ExternalModel(method, classes).predict(SampleSet(images=images), None)
    logits = (images.reshape(3, -1) / 255) @ weights.astype(np.float64)
    all7 = np.exp(logits - logits.max(axis=1, keepdims=True))
    kept = all7[:, [0, 2, 6]]
    np.testing.assert_allclose(found, kept / kept.sum(axis=1, keepdims=True), rtol=1e-5)


def test_a_pipeline_goes_through_the_folds_and_stands_in_report_compare_and_check(place):
    card(
        place,
        "pipeline",
        source="pipes:pipeline",
        kind="estimator",
        layout="flat",
        labels="[]",
        gives="probabilities",
        on="[]",
    )
    said = ferbench("evaluate", "pipes:pipeline", "--dataset", "ckplus", "--refit", cwd=place).stdout
    assert "pipeline (own, seed 0): " in said
    assert "pipeline" in ferbench("report", "--dataset", "ckplus", cwd=place).stdout
    ferbench("check", "--accept", "--reason", "first", "--baseline", "accepted", cwd=place)
    assert ferbench("check", "--baseline", "accepted", cwd=place).stdout.startswith("held: pipeline")
    assert "pipeline" in ferbench("compare", "runs", "runs", cwd=place).stdout
    record = Store(place / "runs").records()[0]
    assert any("pickle" in note for note in record.facts["notes"])


@pytest.mark.parametrize("kind", ["callable", "onnx"])
def test_callables_and_onnx_files_are_tested_as_they_are(place, kind):
    onnx_file(place / "rows.onnx")
    source = {"callable": "nets:first_pixels", "onnx": "rows.onnx"}[kind]
    path = card(place, "theirs", source=source, kind=kind)
    said = json.loads(ferbench("evaluate", path.name, "-d", "ckplus", "--format", "json", cwd=place).stdout)
    (facts,) = said.values()
    assert facts["images"] == 10 * 6 * 3
    assert facts["left out, unknown to the network"] == {"contempt": 30}
    assert (facts["trained on"], facts["held out"]) == (["fer2013"], "as its authors say")
    report = json.loads(ferbench("report", "--dataset", "ckplus", "--format", "json", cwd=place).stdout)
    assert "theirs" in json.dumps(report)
    ferbench("check", "--accept", "--reason", "first", "--baseline", "accepted", cwd=place)
    assert "held: theirs" in ferbench("check", "--baseline", "accepted", cwd=place).stdout
    again = ferbench("evaluate", path.name, "-d", "ckplus", "--refit", cwd=place, code=2)
    assert "has no fit" in again.stdout + again.stderr


def test_a_file_is_opened_once_and_only_if_there_is_no_stored_result(place, monkeypatch):
    onnx_file(place / "rows.onnx")
    path = card(place, "rows", source="rows.onnx", kind="onnx")
    arguments = (str(path), "", "ckplus", place / "runs", place / "data")
    opened, session = [], files.onnx_session
    monkeypatch.setattr(files, "onnx_session", lambda path: opened.append(path) or session(path))
    record = evaluate.evaluate(*arguments)
    assert len(opened) == 1
    assert evaluate.evaluate(*arguments).result == record.result
    assert len(opened) == 1
    evaluate.evaluate(*arguments, fresh=True)
    assert len(opened) == 2
    command = ["evaluate", "rows.toml", "-d", "ckplus", "--runs", "runs", "--data-home", "data"]
    code = f"import sys; from ferbench.cli.main import app; app({command}, standalone_mode=False)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], cwd=place, capture_output=True, text=True
    )
    assert "reused from" in done.stderr
    assert done.stdout.endswith("False\n")


def test_an_external_model_recognises_the_faces_of_pictures(place):
    weights = onnx_file(place / "rows.onnx")
    model = open_model(str(card(place, "rows", source="rows.onnx", kind="onnx")), "", None)
    image = np.random.default_rng(2).integers(0, 256, (48, 48)).astype(np.uint8)
    Image.fromarray(image).save(place / "face.png")
    (picture,) = predict.predict([place / "face.png"], [model], True, None)
    logits = image.reshape(-1) / 255 @ weights.astype(np.float64)
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(picture.faces[0].probabilities.values()), expected, rtol=1e-5)
    assert picture.faces[0].maps is None


def test_a_method_of_sequences_is_given_no_single_images():
    method, images = resolve("dtagn", "tiny", "synth-sequences"), np.zeros((1, 48, 48), dtype=np.uint8)
    with pytest.raises(UsageError, match="reads whole sequences"):
        check_samples(method, SampleSet(images=images))
    with pytest.raises(DataError, match="reads landmarks, and the sequences have none"):
        check_samples(method, SampleSet(images=images, videos=[Video(images)]))
    check_samples(method, SampleSet(images=images, videos=[Video(images, np.zeros((1, 68, 2), dtype=np.float32))]))


def test_a_set_with_a_test_side_alone_is_enough(place):
    rows = [{"label": label, "split": "val"} for label in EMOTIONS]
    lay_down(make_faces(rows, name="fer2013"), place / "data")
    record = evaluate.evaluate(
        str(card(place, "own", source="nets:first_pixels")), "", "fer2013-public", place / "runs", place / "data"
    )
    assert record.result["images"] == 6
    assert record.facts["notes"] == ["the dataset has a test set only"]
    assert record.facts["held_out"]["status"] == "no"  # it says that it has learned from fer2013


@pytest.mark.parametrize(
    ("source", "fields", "words"),
    [
        ("nets:nowhere", {}, "has no 'nowhere'"),
        ("missing:model", {}, "cannot be imported"),
        ("nets:nothing", {}, "no finite numbers"),
        ("nets:first_pixels", {"labels": '["anger", "fear"]'}, "its card names 2 labels"),
        ("nets:first_pixels", {"gives": "probabilities"}, 'may need gives = "logits"'),
        ("none.onnx", {"kind": "onnx"}, "does not exist"),
    ],
)
def test_what_is_wrong_with_a_model_is_one_line(place, source, fields, words):
    path = card(place, "odd", source=source, **fields)
    with pytest.raises(DataError, match=words):
        evaluate.evaluate(str(path), "", "ckplus", place / "runs", place / "data")


def test_a_model_without_a_card_is_told_how_to_get_one(place, monkeypatch):
    monkeypatch.chdir(place)
    with pytest.raises(UsageError, match=r"`ferbench card rows.onnx > rows.toml` writes one"):
        card_beside("rows.onnx")
    onnx_file(place / "rows.onnx", size=32)
    written = ferbench("card", "rows.onnx", cwd=place).stdout
    (place / "rows.toml").write_text(written)
    recipe: Card = resolve("rows.toml", "", "").recipe
    assert (recipe.input.size, recipe.input.layout, recipe.input.colour) == (32, "nchw", "grey")
    assert recipe.model.kind == "onnx"
    assert "nets:first_pixels" in template("nets:first_pixels")


def given(place, change=lambda frame: frame):
    faces = prepared_sets.load("ckplus", place / "data")
    frame = pd.DataFrame({"id": faces.samples["id"], "prediction": faces.samples["label"].replace("fear", "Surprised")})
    path = place / "theirs.csv"
    change(frame).to_csv(path, index=False)
    return path


def test_predictions_from_elsewhere_are_conclusion(place):
    given(place)
    words = ("evaluate", "--predictions", "theirs.csv", "-d", "ckplus", "--name", "Their method", "--format", "json")
    (facts,) = json.loads(ferbench(*words, "--trained-on", "CK+", cwd=place).stdout).values()
    assert facts["accuracy"] == f"{6 / 7:.2%}"
    assert facts["held out"] == "no (as its authors say)"
    assert "Their method" in ferbench("report", "--dataset", "ckplus", cwd=place).stdout
    (record,) = Store(place / "runs").records()
    assert record.facts["uncalibrated"] is True


def test_given_probabilities_are_taken_as_they_are(place):
    def spread(frame):
        for label in EMOTIONS:
            frame[f"p_{label}"] = np.where(frame["prediction"].str.lower() == label, 0.4, 0.1)
        frame["p_surprise"] += np.where(frame["prediction"] == "Surprised", 0.3, 0)
        return frame.drop(columns="prediction").sample(frac=1, random_state=0)

    record = evaluate.evaluate("Theirs", "", "ckplus", place / "runs", place / "data", predictions=given(place, spread))
    stored = Store(place / "runs").predictions(record.key).filter(like="p_").to_numpy()
    assert stored.max(axis=1) == pytest.approx(0.4)
    assert record.facts["held_out"]["status"] == "unknown"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.iloc[1:], "lacks 1 of 210 samples"),
        (lambda f: pd.concat([f, f.iloc[:1]]), r"line 212: .* is there twice"),
        (lambda f: f.replace({"id": {f["id"][2]: "nobody"}}), r"line 4: 'nobody' is not tested by ckplus@1"),
        (lambda f: f.replace({"prediction": {"anger": "grumpy"}}), r"line 2: .* has a prediction that is no emotion"),
        (lambda f: f.assign(p_anger=0.5, p_fear=0.4), r"line 2: .* do not sum to 1"),
        (lambda f: f.assign(p_anger="x", p_fear="1"), r"line 2: .* is no number"),
        (lambda f: f[["prediction"]], "needs the columns id and prediction"),
    ],
)
def test_odd_predictions_name_the_file_and_the_row(place, change, words):
    with pytest.raises(DataError, match=rf"theirs.csv.*{words}"):
        evaluate.evaluate("Theirs", "", "ckplus", place / "runs", place / "data", predictions=given(place, change))


def test_the_example_of_the_api_gives_what_it_says(place, monkeypatch):
    monkeypatch.setenv("FERBENCH_DATA", str(place / "data"))
    monkeypatch.chdir(place)
    failed, tried = doctest.testmod(api)
    assert (failed, tried > 0) == (0, True)
    assert "My method" in ferbench("report", "--dataset", "synth", cwd=place).stdout


def test_the_api_scores_like_the_report_and_refuses_what_is_odd(place):
    evaluator = api.Evaluator("Certain", "ckplus", place / "data")
    folds = api.folds("ckplus", place / "data")
    with pytest.raises(UsageError, match="no predictions of fold 01"):
        evaluator.score()
    tested: list[str] = []
    for fold in folds:
        assert not set(fold.train.subjects) & {name[:4] for name in fold.ids}
        with pytest.raises(UsageError, match="takes probabilities"):
            evaluator.add(fold, np.ones((1, 7)))
        with pytest.raises(UsageError, match="sum to 1"):
            evaluator.add(fold, np.ones((len(fold.ids), 7)))
        evaluator.add(fold, np.eye(7)[np.zeros(len(fold.ids), dtype=int)])
        tested += fold.ids
    score = evaluator.score()
    assert (score.n, score.accuracy, len(set(tested))) == (210, pytest.approx(1 / 7), 210)
    keys = evaluator.store(place / "runs")
    assert len(keys) == len(folds)
    assert evaluator.store(place / "runs") == keys
    report = json.loads(ferbench("report", "--dataset", "ckplus", "--format", "json", cwd=place).stdout)
    assert "Certain" in json.dumps(report)


# What existing classifiers reach on FER2013: training sample, its size, PublicTest; and whether they are suspect.
PEERS = [
    ("fer 25.10.3", 0.747, 2000, 0.6473, False),
    ("face-api 1.7.15", 0.586, 2000, 0.5790, False),
    ("human 3.3.6", 0.845, 2000, 0.6470, False),
    ("emotion-mini", 0.744, 2000, 0.6481, False),
    ("big_XCEPTION", 0.852, 2000, 0.6500, False),
    ("simple_CNN", 0.826, 2000, 0.6358, False),
    ("mini_XCEPTION", 0.688, 2000, 0.6278, False),
    ("PyEmotion", 0.955, 2000, 0.5185, False),
    ("tensorflow-fer", 0.886, 2000, 0.5369, False),
    ("py-feat 0.3", 0.808, 1000, 0.7701, True),
    ("facemood 1.0.1", 0.894, 1000, 0.8741, True),
]


@pytest.mark.parametrize(("name", "trained", "images", "tested", "suspect"), PEERS)
def test_the_two_suspect_public_models_are_flagged_and_the_clean_ones_not(name, trained, images, tested, suspect):
    consistent, sentence = conclusion(trained, images, tested, 3589, ceiling_of("fer2013"))
    assert consistent is suspect, name
    assert ("consistent with having learned" in sentence) == suspect


def test_a_high_figure_alone_and_a_small_gap_alone_are_no_evidence():
    ceiling = ceiling_of("fer2013")
    assert conclusion(0.99, 2000, 0.80, 3589, ceiling)[0] is False
    assert conclusion(0.60, 2000, 0.60, 3589, ceiling)[0] is False
    assert conclusion(ceiling + 0.2 + GAP, 2000, ceiling + 0.2, 3589, ceiling)[0] is False
    assert conclusion(0.90, 2000, 0.90, 3589, None)[0] is None


def test_a_model_that_learned_the_test_images_is_told_from_one_that_did_not(place):
    """Labels of both splits are noise, so that what is known of them can only be known by heart."""
    rng = np.random.default_rng(0)
    rows = [{"label": str(rng.choice(EMOTIONS[:4])), "split": split} for split in ["train"] * 300 + ["val"] * 300]
    faces = make_faces(rows, name="fer2013")
    lay_down(faces, place / "data")
    labels = faces.samples["label"]
    known = {sha256_of(faces.images[row].tobytes()): labels[row] for row in range(len(faces))}
    (place / "heart.py").write_text(
        textwrap.dedent(f"""
        import hashlib, numpy as np
        labels = ["anger", "contempt", "disgust", "fear"]
        known = {known!r}
        seen = {{name: label for number, (name, label) in enumerate(known.items()) if number < 300}}
        def recall(faces, memory):
            names = [hashlib.sha256(np.round(face).astype(np.uint8).tobytes()).hexdigest() for face in faces]
            return np.eye(4)[[labels.index(memory.get(name, "anger")) for name in names]]
        def all_of_it(faces):
            return recall(faces, known)
        def honest(faces):
            return recall(faces, seen)
    """)
    )
    from ferbench.inference.contamination import contamination

    found = {}
    for name in ("all_of_it", "honest"):
        path = card(
            place,
            name,
            source=f"heart:{name}",
            layout="nhw",
            labels='["anger","contempt","disgust","fear"]',
            gives="probabilities",
        )
        text = path.read_text().replace('layout = "nhw"', 'layout = "nhw"\nscale = "0..255"')
        path.write_text(text)
        found[name] = contamination(str(path), "", "fer2013-public", place / "runs", place / "data")
    assert found["all_of_it"].consistent is True
    assert found["honest"].consistent is False
    assert found["honest"].trained == 1.0
    assert found["honest"].near == 0
