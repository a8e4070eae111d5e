"""Index plans by class and person."""

import numpy as np
import pytest
import torch
from support.cnn import fitted, little
from support.recognisers import training_set, workspace

from ferbench.methods.cnn.networks import people_of
from ferbench.methods.cnn.samplers import grouped_epoch, pair_epoch, shifted, tuplet_epoch
from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import resolve
from ferbench.training.augment import DERIVED
from ferbench.training.plan import single_epoch

# Fourteen people with three frames of one to five expressions each, as in CK+.
PEOPLE = np.concatenate([np.full(3 * (1 + person % 5), person) for person in range(14)])
LABELS = np.concatenate([np.repeat((np.arange(1 + person % 5) + person) % 5, 3) for person in range(14)])


def tuplets(step):
    for query in np.unique(step.second):
        rows = step.first[step.second == query]
        yield step.images[query], step.images[rows]


def test_negatives_are_the_query_s_person_s_other_expressions_and_positives_other_people_s_same_one():
    seen = 0
    for epoch in range(3):
        for step in tuplet_epoch(LABELS, PEOPLE, 5, "sample", 32, 1, epoch):
            assert len(step.images) <= 32
            assert len(step.images) == len(step.derived) == len(step.first) == len(step.second)
            for query, rows in tuplets(step):
                near = rows[LABELS[rows] == LABELS[query]]
                far = rows[LABELS[rows] != LABELS[query]]
                assert (PEOPLE[far] == PEOPLE[query]).all()
                assert len(far) == len(set(LABELS[far])) == len(set(LABELS[PEOPLE[query] == PEOPLE])) - 1
                others = near[near != query]
                assert query in near
                assert len(others) == len(set(PEOPLE[others])) == 5
                assert PEOPLE[query] not in PEOPLE[others]
                seen += 1
    assert seen > 20


def test_there_are_fewer_positives_where_there_are_no_more_people():
    labels, people = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    for step in tuplet_epoch(labels, people, 5, "none", 4, 0, 0):
        for query, rows in tuplets(step):
            assert sorted(rows) == sorted([query, query ^ 1, query ^ 2])


def test_images_without_a_name_are_people_of_their_own():
    samples = training_set(9)
    samples.subjects[3:6] = ""
    people = people_of(samples)
    assert len(set(people)) == 5
    assert len(set(people[3:6])) == 3
    assert len(set(people[:3])) == 1


def test_queries_are_all_images_in_turn():
    queries = [query for step in tuplet_epoch(LABELS, PEOPLE, 5, "expand", 32, 1, 0) for query, _ in tuplets(step)]
    assert set(queries[: len(LABELS)]) == set(range(len(LABELS)))


def test_a_quarter_of_the_pairs_is_of_each_kind():
    labels, people = np.tile(np.arange(4).repeat(2), 6), np.repeat(np.arange(6), 8)
    kinds = []
    for epoch in range(20):
        for step in pair_epoch(labels, people, "sample", 16, 0, epoch):
            first, second = step.images[step.first], step.images[step.second]
            assert (first != second).all()
            kinds += list(zip(labels[first] == labels[second], people[first] == people[second], strict=True))
    for kind in ((True, True), (True, False), (False, True), (False, False)):
        assert np.mean([one == kind for one in kinds]) == pytest.approx(0.25, abs=0.06)


def test_pairs_make_do_with_what_there_is():
    labels, people = np.array([0, 0, 1]), np.array([0, 1, 2])  # nobody shows two images
    step = pair_epoch(labels, people, "none", 8, 0, 0)[0]
    assert (step.images[step.first] != step.images[step.second]).all()


def test_grouped_steps_hold_few_classes_with_room_for_all_neighbours():
    counts = np.zeros(5)
    for epoch in range(10):
        for step in grouped_epoch(LABELS, "sample", 24, 7, 3, epoch):
            names, rows = np.unique(LABELS[step.images], return_counts=True)
            assert len(names) == 3
            assert (rows == 8).all()
            counts += np.bincount(LABELS[step.images], minlength=5)
    assert (counts > 0).all()


def test_an_epoch_has_as_many_rows_as_any_and_repeats_for_its_number():
    plans = {
        "grouped": lambda augment, epoch: grouped_epoch(LABELS, augment, 30, 10, 1, epoch),
        "pairs": lambda augment, epoch: pair_epoch(LABELS, PEOPLE, augment, 30, 1, epoch),
        "tuplets": lambda augment, epoch: tuplet_epoch(LABELS, PEOPLE, 5, augment, 30, 1, epoch),
    }
    for name, plan in plans.items():
        for augment in ("none", "sample", "expand"):
            one, again, other = plan(augment, 2), plan(augment, 2), plan(augment, 3)
            assert len(one) == len(single_epoch(len(LABELS), augment, 30, 1, 2)), name
            assert all(
                (a.images == b.images).all() and (a.derived == b.derived).all() for a, b in zip(one, again, strict=True)
            )
            assert any(
                len(a.images) != len(b.images) or (a.images != b.images).any() for a, b in zip(one, other, strict=True)
            )
            drawn = np.concatenate([step.derived for step in one])
            assert (drawn == 0).all() if augment == "none" else (drawn.max() < DERIVED and len(set(drawn)) > 5)


def test_shifts_move_pixels_by_no_more_than_they_may():
    plan = shifted(lambda epoch: single_epoch(20, "none", 10, 0, epoch), 0.125, 7)
    moves = np.concatenate([step.moves for step in plan(0)])
    assert moves.shape == (20, 3)
    assert (moves[:, 0] == 1).all()
    assert 0.05 < np.abs(moves[:, 1:]).max() <= 0.125
    assert (moves == np.concatenate([step.moves for step in plan(0)])).all()
    assert (moves != np.concatenate([step.moves for step in plan(1)])).any()


def test_a_shifted_training_differs_and_none_is_the_default(tmp_path):
    def state(*changes: str) -> torch.Tensor:
        method = little("small-cnn", "finetune.epochs=1", *changes)
        return fitted(method, workspace(tmp_path / str(len(changes)))).state()["trunk.maps.0.weight"]

    assert not torch.equal(state(), state("finetune.shift=0.1"))


def test_records_tell_neighbours_pairs_and_images_without_negatives(tmp_path):
    def facts(name: str, *changes: str):
        work = workspace(tmp_path / name, seed=len(changes))
        fitted(little(name, "finetune.epochs=1", *changes), work, training_set(24))
        return work.facts

    few, many = (
        facts("dlp-cnn")["neighbours"],
        facts("dlp-cnn", "loss.batches=grouped", "loss.neighbours=3")["neighbours"],
    )
    assert 0 < few < many == 3
    assert sum(facts("iacnn")["pairs"].values()) == 3 * 4
    assert facts("nm-softmax")["without_negatives"] == 0
    lonely = training_set(24)
    lonely.subjects[lonely.labels == 0] = "alone"
    work = workspace(tmp_path / "lonely")
    fitted(little("nm-softmax", "finetune.epochs=1"), work, lonely)
    assert work.facts["without_negatives"] == 8


def test_methods_that_compare_people_need_to_know_them():
    for name, needed in (("iacnn", {"subjects"}), ("nm-softmax", {"subjects"}), ("il-cnn", set())):
        method = resolve(name, "tiny", "ckplus")
        assert method.family.needs(method) == needed
        assert method.family.recogniser(method, FOLD, ("anger", "fear")) is not None
