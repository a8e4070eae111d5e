"""``ferbench compare`` and ``ferbench check`` through the real command, on runs written by hand."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.command import ferbench
from support.runs import CLASSES, store_fold

from ferbench.report import check
from ferbench.report.check import _luck
from ferbench.runs.store import Store

PEOPLE = [f"S{n:02d}" for n in range(30)]
RIGHT = [(who, name, name) for who in PEOPLE for name in ("anger", "fear", "surprise")]


def wrong(rows, people: int, name: str = "fear"):
    """The rows with one class mistaken for sadness on the first so many people."""
    return [(w, t, "sadness" if t == name and w in PEOPLE[:people] else p) for w, t, p in rows]


def store_result(home: Path, people: int, seeds: int = 1, **more) -> Path:
    for seed in range(seeds):
        rows = wrong(RIGHT, people + seed % 2)
        store_fold(Store(home), "01", rows[:45], seed=seed, **more)
        store_fold(Store(home), "02", rows[45:], seed=seed, **more)
    return home


def test_a_comparison_says_what_was_lost_and_by_whom(tmp_path):
    store_result(tmp_path / "a", 2)
    store_result(tmp_path / "b", 12)
    told = json.loads(ferbench("compare", "a", "b", "--format", "json", cwd=tmp_path).stdout)
    assert told["accuracy"] == [pytest.approx(88 / 90), pytest.approx(78 / 90)]
    assert told["difference"]["value"] == pytest.approx(-10 / 90)
    assert (told["difference"]["over"], told["difference"]["units"], told["images"]) == ("subjects", 30, 90)
    assert told["p"] == pytest.approx(2 / 2**10, abs=0.001)  # ten people, all of them worse
    assert told["mcnemar"] == pytest.approx(2 / 2**10)
    assert {row["name"]: row["second"] - row["first"] for row in told["classes"]}["fear"] == pytest.approx(-10 / 30)
    assert len(told["flips"]) == 10
    assert all((flip["truth"], flip["first"], flip["second"]) == ("fear", "fear", "sadness") for flip in told["flips"])
    shown = ferbench("compare", "a", "b", "--flips", "3", cwd=tmp_path).stdout
    assert "the second is worse" in shown
    assert "10 images lost, 0 won; the first 3" in shown
    assert "no difference shown" in ferbench("compare", "a", "a", cwd=tmp_path).stdout


def test_runs_of_one_store_are_named_by_their_beginning(tmp_path):
    store = Store(tmp_path / "runs")
    one = store.record(store_fold(store, "01", RIGHT)).experiment
    other = store.record(store_fold(store, "01", wrong(RIGHT, 5), method="gfnet")).experiment
    assert "-5.56 points" in ferbench("compare", one, other, cwd=tmp_path).stdout
    assert "has 2 methods" in ferbench("compare", "runs", one, cwd=tmp_path, code=2).stderr
    assert "neither a folder" in ferbench("compare", "nothing", one, cwd=tmp_path, code=2).stderr


def test_what_was_tested_by_other_folds_is_not_compared(tmp_path):
    store_result(tmp_path / "a", 2)
    store_result(tmp_path / "b", 2, split="e" * 64)
    assert "nothing can be compared" in ferbench("compare", "a", "b", cwd=tmp_path, code=3).stderr


def test_two_preparations_of_the_same_images_are_compared_and_what_differs_is_said(tmp_path):
    store_result(tmp_path / "a", 2, recipe={"stage": {"epochs": 10}})
    store_result(tmp_path / "b", 12, recipe={"stage": {"epochs": 12, "flip": True}}, data="e" * 64)
    shown = ferbench("compare", "a", "b", cwd=tmp_path).stdout
    assert "-11.11 points" in shown
    assert (
        f"From the first to the second changes: finetune.data {'d' * 12} → {'e' * 12}; finetune.epochs 10 → 12; "
        "finetune.flip off → on."
    ) in shown
    store_result(tmp_path / "c", 12, method="gfnet", data="e" * 64)
    assert (
        f"Their images were prepared differently (data fingerprints {'d' * 12} and {'e' * 12})."
        in ferbench("compare", "a", "c", cwd=tmp_path).stdout
    )
    assert "changes" not in ferbench("compare", "a", "a", cwd=tmp_path).stdout


def test_two_sets_that_call_other_images_the_same_are_not_compared(tmp_path):
    store_result(tmp_path / "a", 2)
    store_result(tmp_path / "b", 2, data="e" * 64)
    store_fold(Store(tmp_path / "b"), "01", RIGHT[:44], data="e" * 64)
    assert "1 are in one alone" in ferbench("compare", "a", "b", cwd=tmp_path, code=3).stderr


def accept(folder: Path, *words: str) -> str:
    return ferbench("check", "--accept", "--reason", "first figures", *words, cwd=folder).stdout


def test_a_check_holds_falls_and_is_accepted_anew(tmp_path):
    store_result(tmp_path / "runs", 2)
    assert "97.78% of 90 images" in accept(tmp_path)
    path = tmp_path / "baselines" / "accepted" / "ckplus-wslgan-tiny.json"
    assert ferbench("check", cwd=tmp_path).stdout.startswith("held: WS-LGAN (tiny) under ckplus@1: 97.78% → 97.78%")
    store_result(tmp_path / "fallen", 14)
    done = ferbench("check", "--runs", "fallen", cwd=tmp_path, code=1)
    assert done.stdout.startswith("fell: WS-LGAN (tiny) under ckplus@1: 97.78% → 84.44%, -13.33 points")
    assert "most in fear -40.0" in done.stdout
    assert "1 of 1 accepted figures fell" in done.stderr
    ferbench("check", "--runs", "fallen", "--tolerance", "13.4", cwd=tmp_path)
    ferbench("check", "--runs", "fallen", "--tolerance", "13.3", cwd=tmp_path, code=1)
    ferbench("check", "--accept", "--reason", "harder test images", "--runs", "fallen", cwd=tmp_path)
    ferbench("check", "--runs", "fallen", cwd=tmp_path)
    assert [reason["why"] for reason in json.loads(path.read_text())["reasons"]] == [
        "first figures",
        "harder test images",
    ]


def test_the_baseline_may_be_of_some_folds(tmp_path):
    store_fold(Store(tmp_path / "part"), "01", RIGHT[:45])
    accept(tmp_path, "--runs", "part")
    store_result(tmp_path / "runs", 0)
    assert "n = 45" in ferbench("check", cwd=tmp_path).stdout


def test_what_cannot_be_checked_is_an_error(tmp_path):
    store_result(tmp_path / "runs", 2)
    (tmp_path / "baselines" / "accepted").mkdir(parents=True)
    assert "has an accepted figure" in ferbench("check", cwd=tmp_path, code=3).stderr
    assert "takes a reason" in ferbench("check", "--accept", cwd=tmp_path, code=2).stderr
    assert "auto or points" in ferbench("check", "--tolerance", "few", cwd=tmp_path, code=2).stderr
    accept(tmp_path)
    store_result(tmp_path / "other", 2, data="e" * 64)
    assert "different data fingerprints" in ferbench("check", "--runs", "other", cwd=tmp_path, code=3).stderr
    store_result(tmp_path / "later", 2, protocol="ckplus@2")
    assert "different protocols" in ferbench("check", "--runs", "later", cwd=tmp_path, code=3).stderr


def test_an_accepted_figure_without_a_run_fails_the_check(tmp_path):
    """A training that was not made must not look like one that held."""
    store_result(tmp_path / "all", 2)
    store_result(tmp_path / "all", 2, method="gfnet")
    accept(tmp_path, "--runs", "all")
    store_result(tmp_path / "runs", 2)
    done = ferbench("check", cwd=tmp_path, code=1)
    held, missing = sorted(done.stdout.splitlines())
    assert held.startswith("held: WS-LGAN (tiny)")
    assert missing.startswith("missing: ")
    assert "ckplus-gfnet-tiny.json: train or evaluate it again, or remove the file" in missing
    assert "1 of 2 accepted figures have no run" in done.stderr
    rows = json.loads(ferbench("check", "--format", "json", cwd=tmp_path, code=1).stdout)
    assert {row["baseline"]: (row["held"], row["found"] is None) for row in rows} == {
        "ckplus-wslgan-tiny": (True, False),
        "ckplus-gfnet-tiny": (False, True),
    }
    assert (
        "::error title=ferbench check::missing: "
        in ferbench("check", "--format", "github", cwd=tmp_path, code=1).stdout
    )
    # Files that are named are all wanted, too; one of them alone is enough to check that one.
    paths = [f"baselines/accepted/ckplus-{name}-tiny.json" for name in ("wslgan", "gfnet")]
    ferbench("check", "--baseline", paths[0], "--baseline", paths[1], cwd=tmp_path, code=1)
    ferbench("check", "--baseline", paths[0], cwd=tmp_path)
    assert "has an accepted figure: WS-LGAN" in ferbench("check", "--baseline", paths[1], cwd=tmp_path, code=3).stderr


def test_figures_that_come_with_ferbench_are_checked_as_far_as_there_are_runs(tmp_path, monkeypatch, capsys):
    store_result(tmp_path / "all", 2)
    store_result(tmp_path / "all", 2, method="gfnet")
    package = tmp_path / "package"
    accept(package.parent, "--runs", "all")
    (tmp_path / "baselines").rename(package)
    monkeypatch.setattr(check, "shipped", lambda _: package)
    monkeypatch.chdir(tmp_path)
    store_result(tmp_path / "runs", 2)
    check.check_runs([], "auto", "console", tmp_path / "runs")
    held, left = capsys.readouterr().out.splitlines()
    assert held.startswith("held: WS-LGAN (tiny)")
    assert left.startswith("not checked: ")
    check.check_runs([], "auto", "junit", tmp_path / "runs")
    suite = ElementTree.fromstring(capsys.readouterr().out)
    assert [suite.get(name) for name in ("tests", "failures", "skipped")] == ["2", "0", "1"]
    assert suite.find("testcase/skipped").get("message").startswith("not checked: ")


def test_two_recipes_of_one_name_are_both_accepted_and_checked(tmp_path):
    """Neither figure overwrites the other, and each is compared with its own recipe."""
    recipes = [{"recipe": {"stage": {"epochs": epochs}}} for epochs in (10, 12)]
    for recipe, people in zip(recipes, (2, 14), strict=True):
        store_result(tmp_path / "runs", people, **recipe)
    assert accept(tmp_path).count("accepted WS-LGAN (tiny)") == 2
    paths = sorted((tmp_path / "baselines" / "accepted").glob("ckplus-wslgan-tiny-*.json"))
    assert sorted(round(check.read(path).accuracy, 3) for path in paths) == [0.844, 0.978]
    told = ferbench("check", cwd=tmp_path).stdout
    assert "97.78% → 97.78%" in told
    assert "84.44% → 84.44%" in told
    # One of them again: its own figure is compared, and the other's run is missing.
    store_result(tmp_path / "one", 14, **recipes[1])
    told = ferbench("check", "--runs", "one", cwd=tmp_path, code=1).stdout
    assert "held: WS-LGAN (tiny) under ckplus@1: 84.44% → 84.44%" in told
    assert told.count("missing: ") == 1
    # Accepted anew, it stays in its own file, with both reasons.
    ferbench("check", "--accept", "--reason", "again", "--runs", "one", cwd=tmp_path)
    assert sorted((tmp_path / "baselines" / "accepted").iterdir()) == paths
    assert sorted(len(check.read(path).reasons) for path in paths) == [1, 2]
    # A third recipe beside them could be a change of either: nothing is guessed.
    store_result(tmp_path / "runs", 2, recipe={"stage": {"epochs": 14}})
    told = ferbench("check", cwd=tmp_path, code=2).stderr
    assert "is stored with recipes that have no accepted figure" in told
    assert "ferbench check --accept" in " ".join(told.split())


def test_a_changed_recipe_is_compared_with_the_one_figure_of_its_name(tmp_path):
    store_result(tmp_path / "runs", 2, recipe={"stage": {"epochs": 10}})
    accept(tmp_path)
    store_result(tmp_path / "later", 14, recipe={"stage": {"epochs": 12}})
    ferbench("check", "--runs", "later", cwd=tmp_path, code=1)


def test_what_was_changed_from_the_preset_belongs_to_the_name(tmp_path):
    store_result(tmp_path / "runs", 2)
    accept(tmp_path)
    command = "ferbench train wslgan --dataset ckplus --set finetune.flip=true"
    store_result(tmp_path / "changed", 2, facts={"command": command})
    name = "WS-LGAN (tiny) under ckplus@1 with finetune.flip=true: 97.78%"
    assert f"held: {name}" in ferbench("check", "--runs", "changed", cwd=tmp_path).stdout
    assert f"second: {name}" in ferbench("compare", "runs", "changed", cwd=tmp_path).stdout


def test_formats_for_machines(tmp_path):
    store_result(tmp_path / "runs", 2)
    accept(tmp_path)
    store_result(tmp_path / "fallen", 14)
    words = ("check", "--runs", "fallen", "--format")
    (finding,) = json.loads(ferbench(*words, "json", cwd=tmp_path, code=1).stdout)
    assert (finding["held"], finding["baseline"]) == (False, "ckplus-wslgan-tiny")
    suite = ElementTree.fromstring(ferbench(*words, "junit", cwd=tmp_path, code=1).stdout)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite.find("testcase/failure").get("message").startswith("fell: ")
    summary = tmp_path / "summary.md"
    told = ferbench(*words, "github", cwd=tmp_path, code=1, GITHUB_STEP_SUMMARY=str(summary)).stdout
    assert told.startswith("::error title=ferbench check::fell: ")
    assert "| 97.78% | 84.44% |" in summary.read_text()


def test_seeds_that_vary_excuse_a_fall_that_people_do_not(tmp_path):
    """All people lose a little under one unlucky seed: with seeds as far apart before, that is no alarm."""
    rng = np.random.default_rng(0)
    accuracies = rng.normal(0.9, 0.02, 5)

    def frames(values):
        import pandas as pd

        return [
            pd.DataFrame(
                {"truth": ["a"] * 1000, "prediction": ["a"] * round(1000 * v) + ["b"] * (1000 - round(1000 * v))}
            )
            for v in values
        ]

    assert _luck(frames(accuracies[:3]), frames(accuracies[3:])) > 0.05
    assert _luck(frames([0.9, 0.91]), frames([0.7, 0.71])) < 0.01
    assert _luck(frames([0.9]), frames([0.8])) == 0.0  # nothing is known of luck: people alone decide


@pytest.mark.slow
def test_two_hundred_checks_of_reseeded_trainings_raise_no_more_alarms_than_stated(tmp_path):
    from support.predictions import reseeded

    from ferbench.report.compare import Result

    rng, alarms = np.random.default_rng(4), 0

    def result(frames) -> Result:
        seeds = list(range(len(frames)))
        return Result("wslgan", "WS-LGAN", "tiny", "p@1", "", "", "last", "", CLASSES, seeds, frames, False)

    for seeds in (1, 3):
        for _ in range(100):
            drawn = reseeded(rng, 2 * seeds)
            accepted = check.accepted_of(result(drawn[:seeds]), "as it is", [])
            alarms += not check.compared(accepted, result(drawn[seeds:]), None, "b").held
    assert alarms <= 17  # 10 expected at most; see test_statistics
    assert check.LEVEL == 0.05


def test_an_accepted_file_names_no_image_and_nobody_and_tells_no_label(tmp_path):
    store_result(tmp_path / "runs", 2)
    accept(tmp_path)
    (path,) = (tmp_path / "baselines" / "accepted").glob("*.json")
    kept = json.loads(path.read_text())
    frame = Store(tmp_path / "runs").predictions(Store(tmp_path / "runs").records()[0].key)
    assert not {*frame["id"], *frame["subject"]} & {*kept["ids"], *kept["subjects"]}
    assert not any(
        name in path.read_text() for name in (*frame["id"], *(f'"{name}"' for name in set(frame["subject"])))
    )
    assert "truths" not in kept
    assert kept["predictions"] == kept["margins"] == []
    assert {hit for correct in kept["correct"] for hit in correct} == {0, 1}


def test_images_of_the_accepted_figure_that_are_not_tested_are_counted(tmp_path):
    store_result(tmp_path / "runs", 2)
    accept(tmp_path)
    (path,) = (tmp_path / "baselines" / "accepted").glob("*.json")
    kept = json.loads(path.read_text())
    kept["ids"][0] = "0" * 12
    path.write_text(json.dumps(kept))
    told = ferbench("check", cwd=tmp_path, code=3).stderr
    assert f"1 of the {len(kept['ids'])} accepted images were not tested" in told


SEQUENCES = {
    "protocol": "ckplus-sequences@1",
    "split": "e" * 64,
    "data": "b" * 64,
    "method": "dtagn",
    "recipe": {"T": 12},
}
FACTS = {"level": "sequence", "sees": "whole", "display": "DTAGN", "uncalibrated": True}


def test_images_and_sequences_are_compared_by_sequences_alone(tmp_path):
    frames = [row for row in wrong(RIGHT, 12) for _ in range(3)]
    store_fold(Store(tmp_path / "a"), "01", frames[:135])
    store_fold(Store(tmp_path / "a"), "02", frames[135:])
    store_result(tmp_path / "b", 2, facts=FACTS, **SEQUENCES)
    told = json.loads(ferbench("compare", "a", "b", "--format", "json", cwd=tmp_path).stdout)
    assert (told["level"], told["images"], told["protocol"]) == ("sequence", 90, "ckplus@1 and ckplus-sequences@1")
    assert told["accuracy"] == [pytest.approx(78 / 90), pytest.approx(88 / 90)]
    assert {flip["second_probability"] for flip in told["flips"]} == {None}
    assert [flip["first_probability"] for flip in told["flips"]] == pytest.approx([0.9] * len(told["flips"]))
    shown = ferbench("compare", "a", "b", cwd=tmp_path).stdout
    assert "n = 90 sequences; the second is better" in shown
    assert "predicted by the mean of its images' probabilities" in shown
    assert "Not the methods alone" not in shown


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"rows": RIGHT[3:]},
            "test different sequences (3 are in one alone, such as S00-anger), so nothing can be compared",
        ),
        ({"cut": 48}, "differ in the fold of 3 sequences, such as S15-anger (02 and 01), so nothing can be compared"),
        (
            {"facts": FACTS | {"held_out": False}},
            "was tested on people that it was trained on, so nothing can be compared",
        ),
    ],
)
def test_one_line_says_why_two_runs_cannot_be_compared(tmp_path, change, said):
    store_result(tmp_path / "a", 2)
    rows, cut = change.get("rows", RIGHT), change.get("cut", 45 - 90 + len(change.get("rows", RIGHT)))
    for fold, mine in (("01", rows[:cut]), ("02", rows[cut:])):
        store_fold(Store(tmp_path / "b"), fold, mine, facts=change.get("facts", FACTS), **SEQUENCES)
    message = ferbench("compare", "a", "b", cwd=tmp_path, code=3).stderr
    assert said in message
    assert message.strip().count("\n") == 0


def test_images_of_no_sequence_are_not_compared_with_sequences(tmp_path):
    store_fold(Store(tmp_path / "a"), "01", [("", truth, truth) for _, truth, _ in RIGHT])
    store_result(tmp_path / "b", 2, facts=FACTS, **SEQUENCES)
    assert "images of no known sequence" in ferbench("compare", "a", "b", cwd=tmp_path, code=3).stderr


def test_what_differs_beside_the_method_is_said(tmp_path):
    store_result(tmp_path / "a", 2)
    store_result(
        tmp_path / "b",
        2,
        method="mine",
        preset="full",
        facts={"trained_on": ["fer2013@1", "ckplus@1"], "held_out": "unknown"},
    )
    shown = ferbench("compare", "a", "b", cwd=tmp_path).stdout
    assert "Besides the method, the preset differs: tiny (WS-LGAN), full (WS-LGAN)." in shown
    assert "Besides the method, the earlier training data differ: none (WS-LGAN), fer2013@1 (WS-LGAN)." in shown
    assert "Whether WS-LGAN (full) under ckplus@1 was trained on test subjects is unknown." in shown


def test_sequences_are_accepted_and_checked_like_images(tmp_path):
    store_result(tmp_path / "runs", 2, facts=FACTS, **SEQUENCES)
    assert "97.78% of 90 sequences" in accept(tmp_path)
    kept = json.loads((tmp_path / "baselines" / "accepted" / "ckplus-sequences-dtagn-tiny.json").read_text())
    assert kept["level"] == "sequence"
    assert ferbench("check", cwd=tmp_path).stdout.startswith("held: DTAGN (tiny) under ckplus-sequences@1")
    store_result(tmp_path / "fallen", 14, facts=FACTS, **SEQUENCES)
    ferbench("check", "--runs", "fallen", cwd=tmp_path, code=1)


def test_accepted_figures_of_before_are_of_images():
    from ferbench.files import shipped

    paths = sorted((shipped("baselines") / "accepted").glob("*.json"))
    assert paths
    assert {check.read(path).level for path in paths} == {"image"}
