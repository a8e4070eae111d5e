"""Ablations and data leakage from stored runs: who is compared with whom, what is said of it, and no torch."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.command import watched
from support.runs import grids, store_fold, store_stage

from ferbench import statistics
from ferbench.errors import DataError
from ferbench.report import ablation
from ferbench.report.ablation import write_ablation
from ferbench.report.build import build
from ferbench.report.conclusions import sections
from ferbench.report.formats.text import markdown
from ferbench.report.table import Section
from ferbench.runs.store import Store

WHOLE = {"growth": 12, "features": "local+global", "fusion": "sfu", "contrastive": True}
VARIANTS = {
    "wslgan": ("WS-LGAN", {}),
    "gfnet": ("GFNet", {"features": "global"}),
    "lfnet": ("LFNet", {"features": "local"}),
    "wslgan-sum": ("WS-LGAN-Sum", {"fusion": "sum"}),
    "wslgan-wcl": ("WS-LGAN-WCL", {"contrastive": False}),
}
EVERYONE = tuple(range(20))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def lay(
    store: Store,
    method: str = "wslgan",
    wrong: tuple[int, ...] = (),
    folds: tuple[str, ...] = ("01", "02"),
    epochs: int = 3,
    chosen: int = 0,
    facts: dict[str, Any] | None = None,
    **more: Any,
) -> None:
    """Store a training: 20 subjects with two images each in two folds; those in ``wrong`` have one image wrong."""
    title, change = VARIANTS[method]
    told = {"display": title, "published": "" if method == "wslgan-wcl" else title, **(facts or {})}
    recipe = {"architecture": {**WHOLE, **change}, "stage": {"epochs": epochs}}
    for fold in folds:
        mine = [s for s in EVERYONE if f"{s % 2 + 1:02d}" == fold]
        rows = [
            row
            for s in mine
            for row in ((f"S{s}", "anger", "happiness" if s in wrong else "anger"), (f"S{s}", "fear", "fear"))
        ]
        key = store_fold(store, fold, rows, method=method, recipe=recipe, facts=told, **more)
        if chosen:
            record = store.record(key)
            store.finish(record.model_copy(update={"result": {**record.result, "epoch": chosen}}))


def test_variants_are_said_to_differ_only_where_the_corrected_test_shows_it(store):
    lay(store, wrong=(0,))
    lay(store, "gfnet", wrong=EVERYONE)
    lay(store, "lfnet", wrong=(0, 1))
    lay(store, "wslgan-wcl", wrong=(0, 1, 2, 3, 4, 5, 6))
    (found,) = ablation.build(store)
    reference, *variants = found.variants
    assert (reference.method, reference.against, reference.accuracy) == ("WS-LGAN", None, 39 / 40)
    assert [v.method for v in variants] == ["GFNet", "LFNet", "WS-LGAN-WCL"]
    said = {v.method: v.against for v in variants}
    assert said["GFNet"].difference.value == pytest.approx(-19 / 40)
    assert said["LFNet"].difference.value == pytest.approx(-1 / 40)
    assert said["GFNet"].difference.high < 0 <= said["LFNet"].difference.high
    assert said["GFNet"].difference.over == "subjects"
    assert (said["GFNet"].verdict, said["LFNet"].verdict) == ("worse", "no difference shown")
    # Sign flips of six subjects that are all worse: 2/2^6; times two, since one of the three p-values is smaller.
    assert said["WS-LGAN-WCL"].p == pytest.approx(2 / 2**6, abs=0.01)
    assert said["WS-LGAN-WCL"].p_holm == pytest.approx(2 * said["WS-LGAN-WCL"].p)
    assert said["WS-LGAN-WCL"].verdict == "no difference shown"
    assert [v.against.p_holm for v in variants] == statistics.holm([v.against.p for v in variants])


def test_what_is_better_is_called_better(store):
    lay(store, wrong=EVERYONE)
    lay(store, "gfnet")
    (found,) = ablation.build(store)
    assert found.variants[1].against.verdict == "better"


def test_the_tables_have_the_papers_form_and_its_figures_beside(store):
    for method in VARIANTS:
        lay(store, method)
    (found,) = ablation.build(store)
    features, fusion, loss, differences = grids(ablation.section(found).tables)
    assert [row[:2] for row in features[2]] == [["WS-LGAN", "98.06"], ["GFNet", "95.10"], ["LFNet", "94.90"]]
    assert [row[:2] for row in fusion[2]] == [["WS-LGAN", "98.06"], ["WS-LGAN-Sum", "95.82"]]
    assert [row[:2] for row in loss[2]] == [["WS-LGAN", "98.06"], ["WS-LGAN-WCL", "never published"]]
    assert [(row[0], row[-1]) for row in differences[2]] == [
        ("GFNet", "-2.96"),
        ("LFNet", "-3.16"),
        ("WS-LGAN-Sum", "-2.24"),
        ("WS-LGAN-WCL", "never published"),
    ]
    assert "Table 10: printed as a copy of table 9" in "\n".join(ablation.section(found).lines)
    assert "Epochs: fine-tuning 3." in ablation.section(found).lines


def test_only_trainings_that_differ_in_the_part_alone_are_compared(store):
    lay(store)
    lay(store, "gfnet", epochs=4)  # another schedule
    lay(store, "lfnet", split="e" * 64)  # other folds
    lay(store, "wslgan-sum", precision="bf16")
    assert ablation.build(store) == []
    lay(store, "gfnet")
    (found,) = ablation.build(store)
    assert [v.method for v in found.variants] == ["WS-LGAN", "GFNet"]
    assert ablation.build(store, experiments=found.variants[0].experiments) == []
    assert len(ablation.build(store, experiments=[e for v in found.variants for e in v.experiments])) == 1


def test_each_variant_may_have_networks_of_its_own_method_before_its_pre_training(store):
    def pretrained(method: str, teacher_epochs: int = 3) -> dict[str, str]:
        recipe = {"architecture": {**WHOLE, **VARIANTS[method][1]}, "stage": {"epochs": 3}}
        before = {**recipe, "stage": {"epochs": teacher_epochs}}
        teacher = store_stage(store, "pretrain", method=method, preset="light", recipe=before)
        parents = {"teacher light": teacher, "start light": teacher}
        return {"pretrain": store_stage(store, "pretrain", method=method, recipe=recipe, parents=parents)}

    for method in ("wslgan", "gfnet"):
        lay(store, method, parents=pretrained(method))
    lay(store, "lfnet", parents=pretrained("lfnet", teacher_epochs=5))  # its teacher learned longer
    (found,) = ablation.build(store)
    assert [v.method for v in found.variants] == ["WS-LGAN", "GFNet"]


def test_other_attention_maps_are_another_ablation_and_a_method_without_maps_is_in_both(store):
    maps = [store_stage(store, "attention", epochs=epochs) for epochs in (3, 5)]
    for amg in maps:
        lay(store, parents={"attention": amg})
    lay(store, "lfnet", parents={"attention": maps[0]})
    lay(store, "gfnet")
    found = sorted([v.method for v in one.variants] for one in ablation.build(store))
    assert found == [["WS-LGAN", "GFNet"], ["WS-LGAN", "GFNet", "LFNet"]]


def test_seeds_are_paired_and_averaged(store):
    for seed, wrong in ((0, (0,)), (1, (0, 1, 2))):
        lay(store, wrong=wrong, seed=seed)
    lay(store, wrong=EVERYONE, seed=2)  # a seed that the variant lacks
    for seed in (0, 1):
        lay(store, "gfnet", wrong=(0, 1, 2, 3), seed=seed)
    (found,) = ablation.build(store)
    reference, variant = found.variants
    assert (reference.seeds, reference.images) == ([0, 1, 2], 120)
    assert reference.accuracy == pytest.approx((39 + 37 + 20) / 120)
    assert variant.against.seeds == [0, 1]
    assert variant.against.difference.value == pytest.approx(((36 - 39) + (36 - 37)) / 80)


def test_other_folds_are_not_compared(store):
    lay(store)
    lay(store, "gfnet", folds=("01",))
    (found,) = ablation.build(store)
    assert found.variants[1].against is None
    assert found.variants[1].folds == "1/2"
    assert "no seed with the same folds done" in markdown([Section("", [], ablation.section(found).tables)])


def lay_leakage(store: Store) -> None:
    lay(store, wrong=(0, 1, 2, 3))
    lay(store, wrong=(0, 1), selection="best-test", chosen=2)
    by_image = {"protocol": "ckplus@1+image-folds", "split": "b" * 64}
    lay(store, wrong=(0, 2), **by_image)
    lay(store, wrong=(), selection="best-test", chosen=1, **by_image)


def test_leakage_is_compared_with_the_figure_without_it(store):
    lay_leakage(store)
    lay(store, wrong=EVERYONE, selection="best-val")  # another training
    (found,) = ablation.build_leakage(store)
    assert [one.way for one in found.ways] == list(ablation.WAYS.values())
    assert [one.accuracy for one in found.ways] == [36 / 40, 38 / 40, 38 / 40, 1]
    assert found.ways[0].optimism is None
    assert [one.optimism.value for one in found.ways[1:]] == pytest.approx([2 / 40, 2 / 40, 4 / 40])
    assert [one.epochs for one in found.ways] == [[], [2, 2], [], [1, 1]]
    assert "data leakage inflates" in ablation.leakage_section(found).lines[-3]
    ((caption, _, rows),) = grids(ablation.leakage_section(found).tables)
    assert "no result" in caption
    assert "best-test" in rows[1][-2]
    assert "image-folds" in rows[2][-3]


def test_leakage_is_no_result(store):
    lay_leakage(store)
    lay(store, "gfnet")
    (report,) = build(store)
    assert {(t.selection, t.protocol) for t in report.trainings} == {("last", "ckplus@1")}
    assert report.missing_folds == []
    assert report.leakage_folds == 6
    assert "Left out: 6 folds that measure data leakage" in markdown(sections([report]))
    (found,) = ablation.build(store)
    assert [v.accuracy for v in found.variants] == [36 / 40, 1]


def test_nothing_to_compare_names_the_command(store):
    lay(store)
    with pytest.raises(DataError, match="ferbench ablate --dataset ckplus"):
        write_ablation("ckplus", "console", None, store.home)


def test_the_report_of_a_hundred_runs_reads_each_a_few_times_and_loads_no_torch(store, tmp_path):
    for seed in range(10):
        for method in VARIANTS:
            lay(store, method, wrong=(seed,), seed=seed)
    words = ("report", "--ablation", "--format", "markdown", "--out", "reports/ablation.md")
    opened, loaded = watched(store.home, *words, cwd=tmp_path)
    assert len(opened) > 100
    assert (
        max(opened.values()) <= 4
    )  # records by the store, the tables of parts, those of leakage, and for the checksums of predictions
    assert loaded == []
    text = (tmp_path / "reports/ablation.md").read_text()
    assert text.count("| WS-LGAN ") == 3
    assert "Std over seeds" in text
    assert watched(store.home, "report", "--ablation", "--format", "json", "--out", "a.json", cwd=tmp_path)[1] == []
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["ablations"][0]["variants"][0]["method"] == "WS-LGAN"
    assert document["leakage"] == []
