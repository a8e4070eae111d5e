"""What a page says may be concluded: from the same figures, by the same test, and no more than they carry."""

import pytest
from support.command import output
from support.runs import CLASSES, store_fold

from ferbench.report.build import build
from ferbench.report.compare import chosen, compare, verdict
from ferbench.report.conclusions import Conclusions, conclude, lines
from ferbench.report.formats.html import page
from ferbench.runs.store import Store

OTHER = {"method": "gfnet", "facts": {"display": "GFNet", "published": "GFNet"}}
AGAINST, BETWEEN, LIMITS = (
    "Compared with published figures",
    "Between our methods: is the difference real?",
    "What these figures do not show",
)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def lay(store: Store, wrong: int, people: int = 20, folds=("01", "02"), **more) -> str:
    """A training whose first ``wrong`` people have their anger taken for fear; returns its experiment."""
    names = [f"S{n:02d}" for n in range(people)]
    for place, fold in enumerate(("01", "02")):
        rows = [
            (who, truth, "fear" if truth == "anger" and who in names[:wrong] else truth)
            for who in names[place::2]
            for truth in CLASSES
        ]
        if fold in folds:
            key = store_fold(store, fold, rows, **more)
    return store.record(key).experiment


def concluded(store: Store, dataset: str = "ckplus") -> tuple[Conclusions, dict[str, list[str]]]:
    (report,) = build(store, dataset)
    found = conclude(report)
    return found, dict(found.points)


def test_a_difference_is_shown_where_the_comparison_shows_one(store):
    worse, better = lay(store, 12), lay(store, 2, **OTHER)
    found, points = concluded(store)
    pair = compare(chosen(better, store.home), chosen(worse, store.home))
    assert verdict(pair) == "the second is worse"
    gap = -100 * pair.difference.value
    assert gap == pytest.approx(100 * 10 / 140)
    assert points[BETWEEN][0] == (
        f"Difference shown: GFNet (tiny) is {gap:.2f} points above WS-LGAN (tiny) on the same 140 images; 95 % interval of "
        f"the difference {-100 * pair.difference.high:+.2f} to {-100 * pair.difference.low:+.2f} over 20 subjects, "
        f"p = {pair.p:.4f} by permutation. Chance in the choice of tested people does not explain it."
    )
    assert "another seed" in points[BETWEEN][1]
    (leader,) = found.leaders
    assert leader.name == "GFNet (tiny)"
    assert leader.reach.mean == pytest.approx(138 / 140)
    assert {
        "n = 140 images of 20 people",
        "ckplus@1, 2 folds",
        "last epoch",
        "one seed (0)",
        "the highest of 2 methods",
    } == {*leader.facts}


def test_none_is_shown_where_chance_explains_it_or_too_few_were_tested(store, tmp_path):
    lay(store, 3)
    lay(store, 2, **OTHER)
    _, points = concluded(store)
    assert points[BETWEEN][0].startswith("No difference shown: GFNet (tiny) is 0.71 points above")
    few = Store(tmp_path / "few")
    lay(few, 5, people=5)
    lay(few, 0, people=5, **OTHER)
    _, points = concluded(few)
    assert points[BETWEEN][0].startswith("No difference shown: GFNet (tiny) is 14.29 points above")
    assert "With 5 subjects no difference can be shown, however large." in points[BETWEEN][1]


def test_a_recipe_stands_for_the_mean_of_its_seeds_and_not_for_its_best(store):
    for seed, wrong in enumerate((0, 4, 8)):
        lay(store, wrong, seed=seed)
    lay(store, 2, **OTHER)
    found, points = concluded(store)
    assert found.leaders[0].name == "GFNet (tiny)"
    assert points[BETWEEN][0].startswith("No difference shown: GFNet (tiny) is 1.43 points above WS-LGAN (tiny)")
    (report,) = build(store)
    reach = conclude(report).leaders[0].reach
    assert reach.low < 138 / 140 < reach.high
    lay(store, 2, seed=1, **OTHER)
    (leader,) = concluded(store)[0].leaders
    assert "mean of 2 seeds (0, 1), standard deviation 0.00" in leader.facts
    assert leader.reach.interval.startswith("95 % intervals of all seeds reach 9")


def test_what_lacks_folds_or_knew_the_people_leads_nothing(store):
    lay(store, 6)
    lay(store, 0, folds=("01",), **OTHER)
    lay(store, 0, method="leaky", facts={"display": "Leaky", "held_out": False})
    lay(store, 0, method="other", facts={"display": "Other", "held_out": "unknown"})
    found, points = concluded(store)
    assert [leader.name for leader in found.leaders] == ["WS-LGAN (tiny)"]
    assert points[BETWEEN] == ["There is one method, and no other to compare it with."]
    assert "How GFNet (tiny, seed 0) would do over all folds, since folds are missing." in points[LIMITS]
    assert any("Leaky" in said and "Other" in said and "not held out" in said for said in points[LIMITS])


def test_where_nothing_counts_nothing_is_concluded(store):
    lay(store, 0, folds=("01",))
    found, points = concluded(store)
    assert found.leaders == []
    assert (
        "No training is complete and known to be tested on held-out subjects (folds missing), so nothing is concluded."
        in points["What was measured"]
    )
    assert BETWEEN not in points


def test_methods_that_were_tested_in_different_folds_are_not_compared(store):
    lay(store, 6)
    lay(store, 2, split="e" * 64, **OTHER)
    _, points = concluded(store)
    assert points[BETWEEN] == [
        "The leading methods were not tested on the same images in the same folds, so they are not compared."
    ]


def test_a_comparison_of_images_that_were_prepared_differently_says_so(store):
    lay(store, 6)
    lay(store, 2, data="e" * 64, **OTHER)
    _, points = concluded(store)
    assert "Their images were prepared differently (data fingerprints" in points[BETWEEN][1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (2, "The published figure lies within our interval: no difference shown."),
        (
            14,
            "The published figure lies above our interval: chance in the choice of people whom we tested does not explain the difference",
        ),
    ],
)
def test_a_published_figure_lies_within_our_interval_or_not(store, wrong, said):
    lay(store, wrong)
    _, points = concluded(store)
    (against,) = points[AGAINST]
    assert against.startswith(
        f"WS-LGAN (tiny): 98.06 % was published (Table 2, 981 images); ours is {100 * (1 - wrong / 140):.2f} %"
    )
    assert "(n differs: the test sets are not the same)" in against
    assert said in against


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"published": "IL-CNN"}, "not comparable with ours: it is unknown whether it is of images or of sequences."),
        ({"published": ""}, "no figure was published for this dataset, so there is nothing to compare it with."),
        (
            {"published": "WS-LGAN", "level": "sequence", "sees": "whole"},
            "not comparable with ours: it is of images, ours of sequences.",
        ),
        ({"published": "DTAGN", "level": "sequence", "sees": "3 frames"}, "not comparable with ours: 3 frames only."),
    ],
)
def test_why_a_published_figure_does_not_stand_beside_ours(store, facts, said):
    lay(store, 2, facts=facts)
    (against,) = concluded(store)[1][AGAINST]
    assert said in against
    assert "interval" not in against


def test_what_was_changed_from_the_preset_is_said_wherever_a_figure_stands(store):
    """Of one training nothing differs, so nothing else would tell."""
    command = "ferbench train wslgan --dataset ckplus --recipe modern --epochs 9 --no-pretrain --set 'finetune.drops=[0.2, 0.5]'"
    lay(store, 2, facts={"command": command})
    changed = ["recipe=modern", "epochs=9", "finetune.drops=[0.2, 0.5]", "no pre-training"]
    found, _ = concluded(store)
    assert f"changed from the preset: {', '.join(changed)}" in found.leaders[0].facts
    text = output("report", "--format", "markdown").replace("\\", "")
    assert [text.count(", ".join(changed)), text.count("; ".join(changed))] == [2, 1]
    assert "finetune.drops=[0.2, 0.5]" in output("report", "--format", "console")  # no markup
    card = output("report", "--format", "model-card").replace("\\", "")
    assert all(f"Changed from the preset: {one}" in card for one in changed)
    lay(store, 2, facts={"command": "ferbench train 'unclosed"}, seed=1)  # a stranger's record
    assert [t.changed for t in build(store, "ckplus")[0].trainings] == [changed, []]


def test_drawn_faces_are_compared_with_nothing_published(store):
    lay(store, 2, protocol="synth@1")
    _, points = concluded(store, "synth")
    assert points[AGAINST] == ["Nothing: no published figure is about drawn faces."]
    assert points[LIMITS][0].endswith("the faces are drawn.")


def test_the_best_of_images_and_of_sequences_are_compared_by_sequences(store):
    lay(store, 6)
    lay(
        store,
        1,
        protocol="ckplus-sequences@1",
        method="dtagn",
        facts={"display": "DTAGN", "published": "DTAGN", "level": "sequence"},
    )
    found, points = concluded(store)
    assert [leader.level for leader in found.leaders] == ["image", "sequence"]
    assert points[BETWEEN][0].startswith("Difference shown") or points[BETWEEN][0].startswith("No difference shown")
    assert "DTAGN (tiny) is 3.57 points above WS-LGAN (tiny) on the same 140 sequences" in points[BETWEEN][0]
    assert "predicted by the mean of its images' probabilities" in points[BETWEEN][1]


def test_all_that_is_concluded_stands_on_the_page(store):
    lay(store, 12)
    lay(store, 2, **OTHER)
    text = page(build(store), store)
    found, points = concluded(store)
    assert text.index("what may be concluded") < text.index("<table")
    for said in (found.leaders[0].reach.interval, *(one for answers in points.values() for one in answers)):
        assert said.replace("'", "&#39;") in text


def test_text_formats_begin_with_what_the_page_has_on_top_and_latex_and_csv_do_not(store):
    lay(store, 12), lay(store, 2, **OTHER)
    found, points = concluded(store)
    told = lines(found)
    assert told[0].startswith("Our best: GFNet (tiny), 98.57 % (95 % interval ")
    assert len(told) == 1 + len(points)
    assert told[-1] == f"{LIMITS}: {' '.join(points[LIMITS])}"
    whole = output("report", "--format", "markdown")
    assert whole.startswith("# ckplus: what may be concluded\n\n- " + "\n- ".join(told) + "\n\n# ckplus\n\n- Protocol")
    assert " ".join(output("report").split()).startswith(
        f"ckplus: what may be concluded {' '.join(told)} ckplus Protocol"
    )
    assert not any("what may be concluded" in output("report", "--format", form) for form in ("latex", "csv"))
