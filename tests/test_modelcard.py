"""The model card: metadata that Hugging Face's own reader takes, of figures that the report shows, and honest words."""

import re

import pytest
from markdown_it import MarkdownIt
from support.command import ferbench
from support.runs import CLASSES, store_fold
from support.texts import NASTY, STEERS

from ferbench.errors import DataError, UsageError
from ferbench.report.build import build
from ferbench.report.formats.modelcard import _yaml, model_card
from ferbench.runs.store import Store

yaml = pytest.importorskip("yaml")
ROWS = [(f"S{n:02d}", truth, truth if n % 5 else "sadness") for n in range(10) for truth in CLASSES]


def lay(store: Store, seed: int = 0, rows=ROWS, **more) -> str:
    """A whole training; returns its experiment."""
    for fold, part in (("01", rows[:35]), ("02", rows[35:])):
        key = store_fold(store, fold, part, seed=seed, **more)
    return store.record(key).experiment


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def metadata(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return yaml.safe_load(front)


def test_the_metadata_are_the_figures_of_the_report_and_the_fields_of_the_format(store):
    lay(store)
    lay(store, 1, [(who, truth, truth) for who, truth, _ in ROWS])
    (report,) = build(store)
    found = metadata(model_card([report]))
    assert (found["library_name"], found["pipeline_tag"]) == ("ferbench", "image-classification")
    (model,) = found["model-index"]
    assert model["name"] == "WS-LGAN (tiny)"
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification", "name": "Facial expression recognition"}
    assert result["dataset"]["type"] == "ckplus"
    assert result["dataset"]["config"] == "ckplus@1"
    assert result["dataset"]["args"] == {"fold_file": "f" * 64, "data": "d" * 64}
    first, second = report.trainings
    accuracy, recall, f1, ece = result["metrics"]
    assert (accuracy["type"], recall["type"], f1["type"]) == ("accuracy", "recall", "f1")
    assert accuracy["value"] == pytest.approx((first.accuracy + second.accuracy) / 2, abs=1e-6)
    assert f1["value"] == pytest.approx((first.metrics["macro_f1"] + second.metrics["macro_f1"]) / 2, abs=1e-6)
    assert ece["value"] == pytest.approx((first.metrics["ece"] + second.metrics["ece"]) / 2, abs=1e-6)
    assert accuracy["args"] == {
        "n": "70 images",
        "subjects": 10,
        "folds": 2,
        "seeds": [0, 1],
        "weights_tested": "last epoch",
        "held_out": "by name",
        "interval_95": [pytest.approx(first.interval.low, abs=1e-6), 1.0],
        "interval_over": "10 subjects",
    }


def test_the_reader_of_hugging_face_takes_it(store, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    lay(store)
    (tmp_path / "README.md").write_text(model_card(build(store)), encoding="utf-8")
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.model_name == "WS-LGAN (tiny)"
    assert [one.metric_type for one in card.data.eval_results] == ["accuracy", "recall", "f1", "ece"]
    assert card.data.eval_results[0].metric_value == pytest.approx(0.828571)


def test_the_words_say_what_a_figure_is_of_and_what_nobody_knows(store):
    lay(store, facts={"differs": ["It has | half the layers."], "notes": ["a note"]})
    text = model_card(build(store))
    for said in (
        "Accuracy 82.86 %, 95 % interval",
        "n = 70 images; one seed (0); weights tested: last epoch",
        "98.06 % was published (Table 2, 981 images)",
        "Each of the 2 folds has a separate network",
        "cpu: test, 1 thread",
        "groups of people (age, sex, origin) is unknown",
        "An expression is not a feeling",
        "Differs from the original method: It has",
        "Note: a note",
        "No licence is stated",
        "how much another seed",
        "| sadness ",
    ):
        assert said.lower() in text.lower(), said
    assert not re.search(r"\bS\d\d\b", text)  # nobody of the test set is named


def test_drawn_faces_and_sequences_are_called_so(store):
    lay(store, protocol="synth-sequences@1", facts={"level": "sequence", "sees": "whole", "display": "DTAGN"})
    text = model_card(build(store))
    assert metadata(text)["pipeline_tag"] == "video-classification"
    assert "The faces are drawn by ferbench" in text
    assert "was published" not in text


def test_a_card_is_of_one_model_that_is_whole_and_held_out(store, tmp_path):
    with pytest.raises(DataError, match="complete and known to be tested on unseen people"):
        model_card(build(store))
    store_fold(store, "01", ROWS[:35], method="part")
    lay(store, method="leaky", facts={"held_out": "unknown"})
    with pytest.raises(DataError, match="complete and known to be tested on unseen people"):
        model_card(build(store))
    first = lay(store)
    assert "82.86" in model_card(build(store))
    second = lay(store, method="gfnet", facts={"display": "GFNet"})
    with pytest.raises(UsageError, match=f"here are 2: name one by --training: .*{second}"):
        model_card(build(store))
    told = ferbench("report", "--format", "model-card", "--training", second[:6], cwd=tmp_path).stdout
    assert told == model_card(build(store), second)
    assert "# GFNet (tiny)" in told
    run = next(record.key for record in store.records() if record.experiment == first)
    assert "# WS-LGAN (tiny)" in model_card(build(store), run)
    assert "--format model-card" in ferbench("report", "--training", first, cwd=tmp_path, code=2).stderr


def test_a_hostile_record_gets_neither_into_the_metadata_nor_into_the_page(store):
    facts = {
        "display": f"x\n---\nlicense: mit{NASTY}",
        "rule": f'"\n- a: &a [{NASTY}',
        "differs": [NASTY],
        "notes": [NASTY],
    }
    lay(store, facts=facts)
    text = model_card(build(store))
    assert not STEERS.search(text)
    found = metadata(text)
    assert set(found) == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    assert found["model-index"][0]["name"].startswith("x --- license: mit")
    body = text.split("---\n", 2)[2]
    tokens = [
        t for token in MarkdownIt("commonmark").enable("table").parse(body) for t in (token, *(token.children or ()))
    ]
    assert not {token.type for token in tokens} & {"html_inline", "html_block", "link_open", "image"}


@pytest.mark.parametrize(
    "content",
    [
        {
            "a": [],
            "b": {},
            "c": [[1, 2], []],
            "d": [{"e": {"f": "1"}}, {"g": True}],
            "h": "yes",
            "i": "1e3",
            "j": 0.5,
            "k": 'é\ufffe\U0001f600\\"',
        },
        {"a": [{"b": [{"c": "- d: e", "f": "# g"}], "h": "~"}]},
    ],
)
def test_what_is_written_as_yaml_is_read_as_it_was(content):
    assert yaml.safe_load(_yaml(content)) == content
