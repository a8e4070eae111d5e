"""The one-way flow: floors, light start, and nothing that should not be in the tree."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ferbench"

# Floors of the rooms: a module imports from its own room, or from rooms of the same or a lower floor.
FLOORS = {
    "errors": 1,
    "text": 1,
    "seeds": 1,
    "environment": 1,
    "metrics": 1,
    "statistics": 1,
    "__init__": 1,
    "labels": 2,
    "files": 2,
    "schema": 2,
    "reading": 2,
    "tables": 2,
    "processes": 2,
    "data": 3,
    "runs": 3,
    "protocol": 4,
    "training": 4,
    "report": 4,
    "methods": 5,
    "execution": 6,
    "bench": 6,
    "inference": 6,
    "api": 6,
    "cli": 7,
    "__main__": 8,
}


def imports(path: Path) -> set[str]:
    """Rooms of ferbench that a file imports, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "ferbench" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("ferbench.")}
    return found & set(FLOORS)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_point_down(path):
    for other in imports(path):
        assert FLOORS[other] <= FLOORS[room(path)], f"{path} imports {other}"


def test_the_functions_of_a_listed_way_exist_and_never_climb():
    ways = (ROOT / "docs" / "architecture.md").read_text().split(", function by function\n")[1:]
    assert ways
    for way in ways:
        names = re.findall(r"^\d\. `([\w.]+)`", way.partition("\n## ")[0], re.MULTILINE)
        assert 2 <= len(names) <= 8
        for name in names:
            assert callable(pkgutil.resolve_name(f"ferbench.{name}"))
        levels = [FLOORS[name.partition(".")[0]] for name in names]
        assert levels == sorted(levels, reverse=True), names


def test_no_circles_between_rooms():
    edges = {name: set() for name in FLOORS}
    for path in PACKAGE.rglob("*.py"):
        edges[room(path)] |= imports(path) - {room(path)}
    import graphlib

    list(graphlib.TopologicalSorter(edges).static_order())


def test_reports_know_runs_and_never_models():
    edges = set().union(*(imports(path) for path in (PACKAGE / "report").glob("*.py")))
    assert not edges & {"training", "execution", "methods", "data"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["report", "--help"],
        ["export", "--help"],
        ["predict", "--help"],
        ["bench", "--help"],
        ["ablate", "--help"],
        ["runs"],
        ["protocol", "list"],
        ["env"],
    ],
)
def test_light_verbs_load_no_torch(words, tmp_path):
    code = (
        "import sys; sys.argv[0] = 'ferbench'\nfrom ferbench.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    code = end.code\n"
        "sys.exit(9 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_files_stay_small():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, f"{path} probably holds two things"


def test_no_image_of_a_dataset_is_in_the_tree():
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        assert not name.endswith((".png", ".jpg", ".jpeg", ".npy", ".zip")) or name.startswith("reports/"), name


def test_what_tests_share_is_in_support():
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        assert not re.findall(r"^ *(?:from|import) (?:tests\.)?test_\w+", path.read_text(), re.MULTILINE), path
