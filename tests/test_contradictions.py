"""External models whose file, scores or classes contradict their card or each other, and what is reasonable and accepted."""

import json

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.command import ferbench
from support.datasets import lay_down, make_faces, people

from ferbench import metrics
from ferbench.data import faces as prepared_sets
from ferbench.errors import DataError
from ferbench.inference import evaluate
from ferbench.methods.foreign.cards import template
from ferbench.runs.store import Store

CLASSES = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]
SIDE = 48 * 48


@pytest.fixture
def place(tmp_path):
    lay_down(make_faces(people(10, CLASSES, frames=3), name="ckplus"), tmp_path / "data")
    return tmp_path


def card(place, name, kind="onnx", source="", labels=CLASSES, gives="logits", output="", **fields):
    lines = "\n".join(f"{field} = {json.dumps(value)}" for field, value in fields.items())
    path = place / f"{name}.toml"
    path.write_text(
        f'[model]\nsource = "{source or name + ".onnx"}"\nkind = "{kind}"\n[input]\n{lines}\n'
        f'[output]\nlabels = {json.dumps(labels)}\ngives = "{gives}"\n{output}\n'
    )
    return path


def onnx_file(place, name, *, shape=("N", 1, 48, 48), kind=TensorProto.FLOAT, made=None, outputs=("z",), metadata=None):
    """Logits z = (the first seven rows of pixels) · w. made : further nodes from z, f (flat faces) and m (512 columns)."""
    rng = np.random.default_rng(0)
    size = int(np.prod(shape[1:]))
    scale = 255 if kind != TensorProto.FLOAT else 1
    w = rng.normal(0, 0.02, (size, 7)).astype(np.float32) / scale
    m = rng.normal(0, 0.02, (size, 512)).astype(np.float32)
    nodes = [helper.make_node("Cast", ["faces"], ["c"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Flatten", ["c"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["z"]), *(made or [])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("faces", kind, shape)],
        [helper.make_empty_tensor_value_info(one) for one in outputs],
        [
            numpy_helper.from_array(w, "w"),
            numpy_helper.from_array(m, "m"),
            numpy_helper.from_array(np.array([-1, 7, 1, 1]), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 8
    model = onnx.shape_inference.infer_shapes(model)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, place / f"{name}.onnx")


def evaluated(place, path):
    record = evaluate.evaluate(str(path), "", "ckplus", place / "runs", place / "data")
    return record, Store(place / "runs").predictions(record.key).filter(like="p_").to_numpy()


@pytest.mark.parametrize("batch", [1, 4, 211])
def test_a_fixed_batch_is_fed_as_it_is(place, batch):
    onnx_file(place, "free")
    onnx_file(place, "fixed", shape=(batch, 1, 48, 48))
    _, free = evaluated(place, card(place, "free"))
    record, fixed = evaluated(place, card(place, "fixed"))
    assert record.result["images"] == 210
    np.testing.assert_allclose(fixed, free, atol=1e-6)


@pytest.mark.parametrize("batch", ["N", 4])
def test_of_several_outputs_the_one_that_fits_is_taken_and_named(place, batch):
    made = [
        helper.make_node("MatMul", ["f", "m"], ["embedding"]),
        helper.make_node("ArgMax", ["z"], ["label"], axis=1, keepdims=0),
    ]
    onnx_file(place, "plain")
    onnx_file(place, "three", shape=(batch, 1, 48, 48), made=made, outputs=("label", "embedding", "z"))
    _, plain = evaluated(place, card(place, "plain"))
    record, found = evaluated(place, card(place, "three"))
    np.testing.assert_allclose(found, plain, atol=1e-6)
    assert record.facts["notes"] == ["of the outputs label, embedding, z, z holds the scores"]


def test_two_outputs_that_fit_are_refused_until_the_card_names_one(place):
    made = [helper.make_node("Softmax", ["z"], ["p"], axis=1), helper.make_node("Neg", ["z"], ["e"])]
    onnx_file(place, "two", made=made, outputs=("e", "p"))
    with pytest.raises(DataError, match=r'several outputs with 7 scores a face among e, p: .*\[output\] name = "p"'):
        evaluated(place, card(place, "two"))
    with pytest.raises(DataError, match="has no output 'z', which its card names: it has e, p"):
        evaluated(place, card(place, "two", output='name = "z"'))
    _, found = evaluated(place, card(place, "two", output='name = "p"', gives="probabilities"))
    onnx_file(place, "plain")
    np.testing.assert_allclose(found, evaluated(place, card(place, "plain"))[1], atol=1e-6)
    assert '# name = "e" or "p"' in template(str(place / "two.onnx"))


def test_scores_with_axes_of_length_one_are_scores(place):
    onnx_file(place, "deep", made=[helper.make_node("Reshape", ["z", "s"], ["r"])], outputs=("r",))
    onnx_file(place, "plain")
    np.testing.assert_allclose(evaluated(place, card(place, "deep"))[1], evaluated(place, card(place, "plain"))[1])


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT32])
def test_whole_numbers_are_grey_levels_or_refused(place, kind):
    onnx_file(place, "whole", kind=kind)
    onnx_file(place, "plain")
    with pytest.raises(DataError, match=r'takes whole numbers .*write scale = "0..255" under \[input\]'):
        evaluated(place, card(place, "whole", scale="0..1"))
    with pytest.raises(DataError, match="takes whole numbers"):
        evaluated(place, card(place, "whole", scale="0..255", mean=[128.0]))
    found = evaluated(place, card(place, "whole", scale="0..255"))[1]
    np.testing.assert_allclose(found, evaluated(place, card(place, "plain"))[1], atol=1e-5)
    assert 'scale = "0..255"' in template(str(place / "whole.onnx"))


def test_half_precision_is_taken_and_given(place):
    made = [helper.make_node("Cast", ["z"], ["half"], to=TensorProto.FLOAT16)]
    onnx_file(place, "half", kind=TensorProto.FLOAT16, made=made, outputs=("half",))
    found = evaluated(place, card(place, "half", scale="0..255"))[1]
    onnx_file(place, "plain")
    np.testing.assert_allclose(found, evaluated(place, card(place, "plain"))[1], atol=5e-3)


ORDER = CLASSES[1:] + CLASSES[:1]
PREPROCESSING = json.dumps({"range": [0, 255], "colour": "grey"})


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ({"shape": ("N", 1, 64, 64)}, {}, r"takes faces \[any, 1, 64, 64\], and its card describes \[any, 1, 48, 48\]"),
        ({"shape": ("N", 3, 48, 48)}, {}, "correct size, colour or layout"),
        ({"shape": ("N", 48, 48, 1)}, {}, "correct size, colour or layout"),
        ({}, {"layout": "flat"}, "correct size, colour or layout"),
        ({"shape": (2**40, 1, 48, 48)}, {}, "faces at once: export it with a batch of any size"),
        ({"kind": TensorProto.INT8}, {"scale": "0..255"}, "int8, which cannot hold"),
        ({"kind": TensorProto.BOOL}, {}, "which is no image"),
        ({}, {"labels": CLASSES[:3]}, "gives 7 scores a face, and its card names 3 labels"),
        (
            {"made": [helper.make_node("MatMul", ["f", "m"], ["e"])], "outputs": ("e",)},
            {},
            "gives 512 scores a face, and its card names 7 labels",
        ),
        (
            {"made": [helper.make_node("MatMul", ["f", "m"], ["e"])], "outputs": ("e", "z")},
            {"labels": CLASSES[:3]},
            "no output with 3 scores",
        ),
        (
            {"made": [helper.make_node("ArgMax", ["z"], ["k"], axis=1, keepdims=0)], "outputs": ("k",)},
            {},
            "it returned the shape",
        ),
        (
            {"made": [helper.make_node("Softmax", ["z"], ["p"], axis=1)], "outputs": ("p",)},
            {},
            'gives probabilities, .* write gives = "probabilities"',
        ),
        (
            {"made": [helper.make_node("Cast", ["z"], ["i"], to=TensorProto.INT32)], "outputs": ("i",)},
            {},
            'gives whole numbers, .* write gives = "scores"',
        ),
        ({}, {"gives": "probabilities"}, 'may need gives = "logits"'),
        ({"metadata": {"labels": json.dumps(ORDER)}}, {}, "the metadata of .* stand for contempt, disgust"),
        ({"metadata": {"names": str(dict(enumerate(ORDER)))}}, {}, "the metadata of .* stand for contempt, disgust"),
        ({"metadata": {"preprocessing": PREPROCESSING}}, {}, "say scale = '0..255', and its card says '0..1'"),
    ],
)
def test_a_file_that_contradicts_its_card_is_refused_in_one_line(place, file, fields, words):
    onnx_file(place, "odd", **file)
    with pytest.raises(DataError, match=words):
        evaluated(place, card(place, "odd", **fields))
    assert not Store(place / "runs").records()


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": json.dumps([*CLASSES[:6], "Surprised"])},
        {"names": str(dict(enumerate(CLASSES)))},
        {"labels": "a [text"},
        {"labels": "[1, 2]"},
        {"preprocessing": "none"},
        {"classes": json.dumps([f"class {number}" for number in range(7)])},
    ],
)
def test_metadata_that_agree_or_say_nothing_are_accepted(place, metadata):
    onnx_file(place, "fine", metadata=metadata)
    assert evaluated(place, card(place, "fine"))[0].result["images"] == 210


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"colour": "rgb", "mean": [0.5, 0.5]}, 'mean has 2 numbers, and colour "rgb" takes 1 number or 3'),
        ({"deviation": [0.5, 0.5, 0.5]}, 'deviation has 3 numbers, and colour "grey" takes 1 number'),
        ({"deviation": [0.0]}, "it cannot be 0"),
        ({"colour": "rgb", "layout": "flat"}, 'layout "flat" has no channels'),
        ({"labels": [*CLASSES[:6], "None"]}, "unknown emotion 'None'.*; write \"\" for a score that is no emotion"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(place, fields, words):
    onnx_file(place, "odd")
    with pytest.raises(DataError, match=words):
        evaluated(place, card(place, "odd", **fields))


FUNCTIONS = """
import numpy as np
import torch
rng = np.random.default_rng(0)
good = lambda x: np.tile([0.4, .1, .1, .1, .1, .1, .1], (len(x), 1))
def none(x): return None
def names(x): return ["happy"] * len(x)
def digits(x): return [["0.1"] * 6 + ["0.4"] for _ in x]
def ragged(x): return [[0.1] * (6 + i % 2) for i in range(len(x))]
def short(x): return good(x)[:-1]
def long(x): return good(x)[[0] * (len(x) + 1)]
def one(x): return 0.5
def indices(x): return np.zeros(len(x), dtype=int)
def pair(x): return good(x), good(x)
def table(x): return {"scores": good(x)}
def wide(x): return np.full((len(x), 8), 1 / 8)
def nothing(x): return good(x) * np.nan
def complex_numbers(x): return good(x) * 1j
def raises(x): raise KeyError("emotion")
def leaves(x): raise SystemExit(0)
def late(x):
    if len(x) > 2: raise RuntimeError("too many")
    return good(x)
def of_batch(x):
    z = x.reshape(len(x), -1)[:, :7] - x.reshape(len(x), -1)[:, :7].mean(axis=0)
    return np.exp(9 * z) / np.exp(9 * z).sum(axis=1, keepdims=True)
def by_chance(x): return rng.dirichlet(np.ones(7), len(x))
def negative(x): return good(x) - [0, 0.2, -0.2, 0, 0, 0, 0]
def far(x): return good(x) * 0.9
text = "no function"
def squeezed(x): return good(x).squeeze()
def tensor(x): return torch.tensor(good(x), requires_grad=True)
def rounded(x): return np.round(good(x) - [0, .01, .01, .01, 0, 0, 0], 2)
def one_hot(x): return np.eye(7, dtype=int)[[0] * len(x)]
def listed(x): return good(x).tolist()
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "must return 2 rows of 7 numbers, one for each face and label: it returned None"),
        ("names", "it returned 'happy', which is no number"),
        ("digits", "it returned '0.1', which is no number"),
        ("ragged", "its rows have different lengths"),
        ("short", "the number of rows was 1"),
        ("long", "the number of rows was 3"),
        ("one", "the number of rows was 0"),
        ("indices", r"it returned the shape \[2\]"),
        ("pair", "it returned the shape"),
        ("table", "which is no number"),
        ("wide", "gives 8 scores a face, and its card names 7 labels"),
        ("nothing", "no finite numbers"),
        ("complex_numbers", "which is no number"),
        ("raises", "cannot be run on 2 faces: KeyError: 'emotion'"),
        ("leaves", "cannot be run on 2 faces: SystemExit: 0"),
        ("late", "cannot be run on 64 faces: RuntimeError: too many"),
        ("of_batch", "other scores alone than in a batch of 64"),
        ("by_chance", "other scores alone than in a batch of 64"),
        ("negative", "gives no probabilities"),
        ("far", "gives no probabilities"),
        ("text", "is a str: it is neither a function of faces nor an estimator"),
    ],
)
def test_what_a_callable_must_not_return_is_one_line_that_names_it(place, name, words):
    (place / "calls.py").write_text(FUNCTIONS)
    path = card(place, name, kind="callable", source=f"calls:{name}", gives="probabilities")
    with pytest.raises(DataError, match=rf"^calls:{name} .*{words}"):
        evaluated(place, path)
    assert not Store(place / "runs").records()


@pytest.mark.parametrize("name", ["good", "squeezed", "tensor", "rounded", "one_hot", "listed"])
def test_what_a_callable_may_return(place, name):
    (place / "calls.py").write_text(FUNCTIONS)
    path = card(place, name, kind="callable", source=f"calls:{name}", gives="probabilities")
    record, found = evaluated(place, path)
    assert record.result["accuracy"] == pytest.approx(1 / 7)
    np.testing.assert_allclose(found.sum(axis=1), 1)


def test_an_error_of_a_callable_ends_with_the_code_of_data(place):
    (place / "calls.py").write_text(FUNCTIONS)
    card(place, "ragged", kind="callable", source="calls:ragged", gives="probabilities")
    (place / "broken.py").write_text("model = 1 / 0\n")
    card(place, "broken", kind="callable", source="broken:model")
    for name in ("ragged", "broken"):
        done = ferbench("evaluate", f"{name}.toml", "-d", "ckplus", cwd=place, code=3)
        assert done.stderr.count("\n") == 1


ESTIMATOR = """
import numpy as np
class Fixed:
    def __init__(self, *classes): self.classes_ = np.array(classes)
    def fit(self, x, y): return self
    def predict_proba(self, x):
        first = np.linspace(0.9, 0.4, len(self.classes_) - 1)[:1].repeat(len(x))[:, None]
        rest = (1 - first) / (len(self.classes_) - 1)
        return np.hstack([first, rest.repeat(len(self.classes_) - 1, axis=1)])
sorted_names = Fixed("Angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")
other_names = Fixed("happiness", "anger", "contempt", "disgust", "fear", "sadness", "surprise")
counted = Fixed(*range(7))
from_one = Fixed(*range(1, 8))
without_contempt = Fixed(2, 0, 3, 4, 5, 6)
with_gaps = Fixed(0, 1, 2, 3, 4, 5, 9)
unknown_names = Fixed(*"abcdefg")
class Unfitted(Fixed):
    def __init__(self): pass
    def predict_proba(self, x):
        from sklearn.exceptions import NotFittedError
        raise NotFittedError("call fit first")
unfitted = Unfitted()
"""


def first_class(place, name, labels=CLASSES):
    """The class of an estimator's first column, which is always its prediction, and the notes of the run."""
    (place / "fixed.py").write_text(ESTIMATOR)
    path = card(place, name, "estimator", f"fixed:{name}", labels, "probabilities", layout="flat")
    record, _ = evaluated(place, path)
    (predicted,) = set(Store(place / "runs").predictions(record.key)["prediction"])
    return predicted, record.facts["notes"]


@pytest.mark.parametrize("name", ["sorted_names", "counted", "from_one", "with_gaps", "unknown_names"])
def test_classes_of_an_estimator_in_the_order_of_the_card_are_accepted(place, name):
    assert first_class(place, name) == ("anger", [])


def test_numbers_of_classes_count_the_labels_of_the_card(place):
    predicted, notes = first_class(place, "without_contempt")
    assert predicted == "disgust"
    assert notes == [
        "the scores stand for disgust, anger, fear, happiness, sadness, surprise: classes_ counts the labels of the card "
        "from 0"
    ]


@pytest.mark.parametrize(
    ("name", "labels", "words"),
    [
        (
            "other_names",
            CLASSES,
            "classes_ of fixed:other_names says that the scores stand for happiness, anger, .*card says anger",
        ),
        ("with_gaps", CLASSES[:6], "classes_ of fixed:with_gaps is 0, 1, 2, 3, 4, 5, 9, and its card names 6 labels"),
        ("sorted_names", CLASSES[:6], "says that the scores stand for anger"),
        ("unfitted", CLASSES, "NotFittedError: call fit first; --refit fits it on each fold"),
    ],
)
def test_classes_of_an_estimator_that_contradict_the_card_are_refused(place, name, labels, words):
    with pytest.raises(DataError, match=words):
        first_class(place, name, labels)


def theirs(place, change=lambda frame: frame, certainty=0.4):
    """A CSV of right predictions with probabilities."""
    samples = prepared_sets.load("ckplus", place / "data").samples
    rest = (1 - certainty) / 6
    frame = pd.DataFrame({"id": samples["id"], "prediction": samples["label"]})
    for name in CLASSES:
        frame[f"p_{name}"] = np.where(samples["label"] == name, certainty, rest)
    path = place / "theirs.csv"
    change(frame).to_csv(path, index=False)
    return path


def judged(place, change, **more):
    file = theirs(place, change, **more)
    record = evaluate.evaluate("Theirs", "", "ckplus", place / "runs", place / "data", predictions=file)
    return record, Store(place / "runs").predictions(record.key)


def scaled(frame, factor):
    frame[[f"p_{name}" for name in CLASSES]] *= factor
    return frame


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f: f.assign(prediction=np.roll(f["prediction"], 3)),
            r"line 2: .* not the class with the highest probability.* \(210 such rows\)",
        ),
        (
            lambda f: f.assign(p_fear=f["p_fear"] + f["p_anger"]).drop(columns="p_anger"),
            r"line 2: .* not the class with the highest probability.* \(30 such rows\)",
        ),
        (lambda f: f.assign(label=np.roll(f["prediction"], 5)), r"line 2: .* has a label that is not .*such rows"),
        (lambda f: f.assign(truth=f["prediction"].replace("fear", "")), r"has a truth that is not .* \(30 such rows\)"),
        (lambda f: scaled(f, 0.97), "do not sum to 1"),
        (lambda f: scaled(f.round(2), 0.9).round(2), "do not sum to 1"),
    ],
)
def test_a_csv_that_contradicts_itself_or_the_dataset_is_refused(place, change, words):
    with pytest.raises(DataError, match=words):
        judged(place, change)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.round(2),
        lambda f: f.assign(label=f["prediction"].replace("happiness", "Happy")),
        lambda f: f.assign(label=f["prediction"].map(CLASSES.index)),
        lambda f: f.assign(label=f["prediction"]).sample(frac=1, random_state=0),
    ],
)
def test_a_csv_that_agrees_is_accepted(place, change):
    assert judged(place, change)[0].result["accuracy"] == 1


def test_of_two_highest_probabilities_the_prediction_decides(place):
    def tie(frame):
        zero = {f"p_{name}": 0.0 for name in CLASSES}
        return frame.assign(**(zero | {"p_anger": 0.5, "p_fear": 0.5}), prediction="fear")

    record, frame = judged(place, tie)
    assert set(frame["prediction"]) == {"fear"}
    assert record.result["accuracy"] == pytest.approx(1 / 7)


def test_an_accuracy_below_chance_is_a_note_that_is_printed(place):
    names = dict(zip(CLASSES, ORDER, strict=True))
    swapped = theirs(place, lambda f: f.assign(prediction=f["prediction"].map(names))[["id", "prediction"]])
    words = ("evaluate", "--predictions", swapped.name, "-d", "ckplus", "--name", "Swapped")
    said = ferbench(*words, cwd=place).stderr
    assert "note: the accuracy of 0.00% is below the 14.29% of these predictions in random order (p < 0.001)" in said
    assert "order of the labels" in ferbench(*words, "--format", "json", cwd=place).stdout


def exchanged(share):
    """Predictions in which anger and disgust are exchanged for a share of the samples."""
    names = {"anger": "disgust", "disgust": "anger"}

    def change(frame):
        rows = np.arange(len(frame)) % 10 < 10 * share
        return frame.assign(prediction=frame["prediction"].where(~rows, frame["prediction"].replace(names)))[
            ["id", "prediction"]
        ]

    return change


def test_two_exchanged_classes_are_a_note(place):
    (note,) = judged(place, exchanged(1))[0].facts["notes"]
    assert "anger is predicted as disgust 30 times and recognised 0 times" in note
    assert "disgust is predicted as anger 30 times" in note
    assert "fear" not in note


def test_classes_that_are_often_confused_are_no_note(place):
    """Half of each class is recognised; or one class is taken for another, but not the other for it."""
    assert judged(place, exchanged(0.5))[0].facts["notes"] == []
    one_way = judged(
        place, lambda f: f.assign(prediction=f["prediction"].replace("anger", "disgust"))[["id", "prediction"]]
    )
    assert one_way[0].facts["notes"] == []


def test_a_poor_accuracy_is_not_below_chance(place):
    for label in ("contempt", "anger"):
        assert (
            judged(place, lambda f, label=label: f.assign(prediction=label)[["id", "prediction"]])[0].facts["notes"]
            == []
        )


@pytest.mark.parametrize(
    ("row", "fine"),
    [
        ([0.14] * 7, True),  # 0.98: sevenths, rounded
        ([0.145, 0.145, 0.14, 0.14, 0.14, 0.14, 0.12], False),
        ([0.97, 0, 0, 0, 0, 0, 0], True),
        ([0.96, 0, 0, 0, 0, 0, 0], False),
        ([0.97, 0.0], False),  # of two classes rounding takes 0.01 at most
        ([0.991, 0.0], True),
        ([1.002, -0.002], False),
    ],
)
def test_rows_that_were_rounded_are_probabilities(row, fine):
    assert metrics.sums_to_one(np.array([row])).tolist() == [fine]
    assert metrics.sums_to_one(np.array([row], dtype=np.float32)).tolist() == [fine]
