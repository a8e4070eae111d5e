"""A training whose numbers are none is a failed job that says so, and never a figure; the others go on."""

import numpy as np
import pytest
from helpers import ALONE, FLOOR, inside, lay, train

from ferbench.methods.cnn.recogniser import CnnRecogniser
from ferbench.runs.store import Store
from ferbench.training import loop

OVERFLOWING = ("--set", "finetune.lr=1e30", "--set", "pretrain.lr=1e30")


def test_a_loss_that_is_no_number_fails_the_job_and_names_the_epoch(tmp_path):
    lay(tmp_path)
    ended = inside(train(3, *ALONE, *OVERFLOWING), tmp_path)
    assert (ended.code, "2 of 2 jobs failed" in ended.line) == (4, True)
    for record in Store(tmp_path / "runs").records():
        assert record.error.startswith("FloatingPointError: the loss is ")
        assert " in epoch " in record.error
        assert record.result == {}
    assert inside(FLOOR, tmp_path).code == 0
    assert "the loss is" in inside(["report", "--format", "markdown"], tmp_path).out


def test_probabilities_that_are_no_numbers_fail_the_fold_and_the_other_fold_stands(tmp_path, monkeypatch):
    lay(tmp_path)
    predict, seen = CnnRecogniser.predict, []

    def broken(self, samples, work):
        seen.append(work.identity.fold)
        probabilities = np.array(predict(self, samples, work))
        probabilities[0, 0] = np.nan if work.identity.fold == "01" else probabilities[0, 0]
        return probabilities

    monkeypatch.setattr(CnnRecogniser, "predict", broken)
    assert inside(train(3, *ALONE), tmp_path).code == 4
    errors = {record.identity.fold: record.error for record in Store(tmp_path / "runs").records()}
    assert errors == {"01": "FloatingPointError: the method gave probabilities that are no numbers", "02": ""}
    assert seen == ["01", "02"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 GB")])
def test_a_job_that_has_too_little_memory_fails_and_the_others_go_on(error, tmp_path, monkeypatch):
    lay(tmp_path)
    fit, calls = loop.fit, []

    def short(*words, **options):
        calls.append(1)
        if len(calls) == 1:
            raise error
        return fit(*words, **options)

    monkeypatch.setattr(loop, "fit", short)
    assert inside(train(3, *ALONE), tmp_path).code == 4
    errors = [record.error for record in Store(tmp_path / "runs").records()]
    assert sorted(bool(line) for line in errors) == [False, True]
    assert any(line.startswith("out of memory (") and "smaller preset" in line for line in errors)
