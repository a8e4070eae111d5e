"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


LONGEST = ("test_breaks.py", "test_demo.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest tests first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tests run side by side: one thread each, and the same sums everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No test reads or writes the user's own data, runs or cache; what is cached serves all tests of a process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("FERBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FERBENCH_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the licensed datasets; the test is skipped where it is not there."""
    folder = Path(os.environ.get("FERBENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "CK+48.zip").is_file():
        pytest.skip(f"the licensed datasets are not in {folder} (set FERBENCH_TEST_DATA)")
    return folder
