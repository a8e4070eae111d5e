"""A fixed part of the fuzzing, the same files each time; `python -m tests.fuzz` runs as much of it as one likes."""

import pytest
from fuzz.campaign import GOOD, campaign

QUICK = (
    "run: record.json",
    "run: predictions",
    "set: card",
    "set: npy",
    "speed",
    "fold file",
    "elsewhere",
    "method",
    "protocol",
    "weights",
    "picture",
    "zip",
    "tar",
)


def found(cases, seed, home, only):
    tallies = campaign(cases, seed, home, only)
    return {tally.name: list(tally.findings) for tally in tallies if set(tally.outcomes) - {*GOOD}}


@pytest.fixture(autouse=True)
def _own_temporary_files(monkeypatch):
    """The campaign moves them, so that whatever is written elsewhere is noticed."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)


@pytest.mark.parametrize("only", QUICK)
def test_a_reader_reads_or_refuses_in_one_line(tmp_path, only):
    assert found(60, 1, tmp_path / "fuzz", only) == {}


@pytest.mark.slow
@pytest.mark.long
def test_all_readers_do_over_many_cases(tmp_path):
    assert found(6000, 2, tmp_path / "fuzz", "") == {}
