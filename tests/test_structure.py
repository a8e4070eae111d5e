"""The one-way flow: floors, light start, and nothing that should not be in the tree."""

import ast
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from support.datasets import lay_down, make_faces, people

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


def test_no_circles_between_rooms():
    edges = {name: set() for name in FLOORS}
    for path in PACKAGE.rglob("*.py"):
        edges[room(path)] |= imports(path) - {room(path)}
    import graphlib

    list(graphlib.TopologicalSorter(edges).static_order())


def test_reports_know_runs_and_never_models():
    edges = set().union(*(imports(path) for path in (PACKAGE / "report").glob("*.py")))
    assert not edges & {"training", "execution", "methods", "data"}


def loaded(words: list[str], folder: Path) -> tuple[int, set[str]]:
    """The exit code of a command, and the names of the modules that it loaded."""
    code = (
        "import sys; sys.argv[0] = 'ferbench'\nfrom ferbench.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(*sys.modules, file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "FERBENCH_DATA": str(folder / "data"), "FERBENCH_RUNS": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=folder, env=environment
    )
    return done.returncode, set(done.stderr.splitlines()[-1].split())


COMPILER = {"torch._dynamo", "torch._inductor"}
LEARNING = {"torch", "sklearn", "scipy", "matplotlib", "onnx", "onnxruntime"}
TABLES = {*LEARNING, "pandas", "pyarrow", "PIL"}


@pytest.mark.parametrize(
    ("words", "code", "heavy"),
    [
        (["--help"], 0, TABLES),
        (["report", "--help"], 0, TABLES),
        (["export", "--help"], 0, TABLES),
        (["predict", "--help"], 0, TABLES),
        (["bench", "--help"], 0, TABLES),
        (["ablate", "--help"], 0, TABLES),
        (["protocol", "list"], 0, LEARNING),
        (["env"], 0, TABLES),
        (["runs"], 0, LEARNING),
        (["show"], 0, TABLES),
        (["show", "wslgan"], 0, TABLES),
        (["show", "resnet18", "--dataset", "oulu"], 0, TABLES),
        (["show", "wslgn"], 2, TABLES),
        (["show", "wslgan", "--dataset", "ckpluss"], 2, TABLES),
        (["train", "wslgn", "-d", "ckplus"], 2, TABLES),
        (["train", "wslgan", "-d", "ckpluss"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--preset", "tinny"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--set", "finetune.lrr=1"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--device", "gpu"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--engine", "quick"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--jobs", "many"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--folds", "1-x"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--selection", "best"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--rule", "steps"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus", "--pretrain-on", "jaffe"], 2, TABLES),
        (["ablate", "-d", "ckplus", "--pretrain-on", "celeba"], 2, TABLES),
        (["train", "wslgan", "-d", "ckplus"], 3, TABLES - {"PIL"}),
        (["ablate", "-d", "ckpluss"], 2, TABLES),
        (["evaluate", "-d", "ckpluss"], 2, TABLES),
        (["contamination", "-d", "ckpluss"], 2, TABLES),
        (["predict", "none.png"], 3, LEARNING),
        (["export", "none"], 2, TABLES - {"PIL"}),
        (["maps", "none"], 2, LEARNING),
        (["maps", "-d", "ckpluss"], 3, LEARNING),
        (["evaluate", "-d", "oulu"], 3, TABLES - {"PIL"}),
        (["evaluate", "none", "-d", "oulu"], 2, TABLES - {"PIL"}),
        (["evaluate", "none.onnx", "-d", "oulu"], 2, TABLES - {"PIL"}),
        (["evaluate", "--preset", "tinny", "-d", "oulu"], 2, TABLES - {"PIL"}),
        (["evaluate", "--predictions", "none.csv", "-d", "oulu"], 3, TABLES - {"PIL"}),
        (["contamination", "none", "-d", "oulu"], 2, TABLES - {"PIL"}),
        (["bench", "--preset", "tinny"], 2, TABLES),
        (["bench", "--engine", "quick"], 2, TABLES),
        (["ablate", "--variants", "gfnett"], 2, TABLES),
        (["train", "largest-class", "-d", "synth", "--dry-run"], 0, LEARNING),
        (["train", "wslgan", "-d", "synth", "--preset", "demo", "--dry-run"], 0, {*COMPILER, "sklearn", "onnx"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_loads_nothing_heavy_that_it_does_not_use(words, code, heavy, tmp_path):
    ended, modules = loaded(words, tmp_path)
    assert ended == code
    assert not modules & heavy


def test_a_parent_that_is_not_prepared_is_refused_before_torch_is_loaded(tmp_path):
    lay_down(make_faces(people(10, ["anger", "happiness"]), name="ckplus"), tmp_path / "data")
    ended, modules = loaded(["train", "wslgan", "-d", "ckplus", "--preset", "paper"], tmp_path)
    assert ended == 3
    assert not modules & {"torch", "pandas"}


def ways() -> dict[str, list[str]]:
    """The lists of functions in the documentation, by their titles."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").partition("## The ways of the data")[2]
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: re.findall(r"^\d+\. `([\w.]+)`", part, flags=re.MULTILINE) for part in sections}


def definition(name: str) -> ast.AST:
    """The syntax tree of ``module.function`` or ``module.Class.method`` of the package."""
    parts = name.split(".")
    length = next(n for n in range(len(parts), 0, -1) if PACKAGE.joinpath(*parts[:n]).with_suffix(".py").is_file())
    node: ast.AST = ast.parse(PACKAGE.joinpath(*parts[:length]).with_suffix(".py").read_text())
    for part in parts[length:]:
        node = next(child for child in ast.iter_child_nodes(node) if getattr(child, "name", "") == part)
    return node


def names_in(node: ast.AST) -> set[str]:
    """All names that a function uses: of variables, of attributes, and of what it imports."""
    imported = (alias.name for child in ast.walk(node) if isinstance(child, ast.ImportFrom) for alias in child.names)
    used = (getattr(child, "id", getattr(child, "attr", "")) for child in ast.walk(node))
    return {*imported, *used}


@pytest.mark.parametrize("title", ways())
def test_the_data_flows_down(title):
    way = ways()[title]
    assert way[0].startswith("cli.")
    assert 3 <= len(way) <= 9  # at most eight hops
    for before, after in pairwise(way):
        assert after.rpartition(".")[2] in names_in(definition(before)), f"{before} does not call {after}"
        assert FLOORS[after.partition(".")[0]] <= FLOORS[before.partition(".")[0]], f"{after} is above {before}"
    definition(way[-1])


def test_the_documentation_lists_the_ways_of_the_data():
    assert set(ways()) == {"Train", "Evaluate", "Report"}


def test_contributors_are_sent_to_places_that_exist():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Where a change is made")[2]
    rows = [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| an? .*$", table, flags=re.MULTILINE)]
    assert len(rows) == 10
    for words in rows:
        files = [word for word in words if "/" in word or word == "Makefile"]
        text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
        names = [word for word in words if word.isidentifier() and word not in files]
        assert not [name for name in names if not re.search(rf"\b{name}\b", text)]


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
