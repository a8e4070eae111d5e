"""Signals, kills, full disks and the like, each done for real. The long version: FERBENCH_KILLS=60."""

import os

import pytest
from ends import SCENARIOS
from kills import killed

pytestmark = pytest.mark.slow
QUICK = ("sigterm", "sigterm-shared", "orphans", "memory", "few-files", "no-number")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in SCENARIOS]
)
def test_a_fault_ends_as_promised(name, tmp_path):
    outcomes = SCENARIOS[name](tmp_path / "place")
    if not outcomes:
        pytest.skip("nobody may mount a disk here")
    for outcome in outcomes:
        assert outcome.held, outcome


@pytest.mark.long
def test_a_training_that_is_killed_again_and_again_ends_with_the_bytes_of_one_that_is_not(tmp_path):
    count = int(os.environ.get("FERBENCH_KILLS", "8"))
    log = killed(tmp_path, count, epochs=200 * max(1, count // 8))
    assert (log.orphans, log.code) == (0, 0), log
    assert len(log.kills) == count, log
    assert log.same, log
    assert log.files == 6
