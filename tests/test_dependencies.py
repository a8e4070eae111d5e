"""No version that is known to be exploitable by a file is installed, and none may be installed by what is declared.

An audit against the whole list of advisories needs a network: `make audit`. These are the ones that files of others
would reach, and they are held without one.
"""

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
DECLARED = [
    Requirement(text)
    for text in [
        *PROJECT["dependencies"],
        *(text for extra in PROJECT["optional-dependencies"].values() for text in extra),
    ]
]

# Package, the last version with the flaw, the first without, and the flaw.
FLAWS = [
    ("torch", "2.5.1", "2.6.0", "CVE-2025-32434"),
    ("pillow", "12.3.0", "13.0.0", "CVE-2026-96639"),
    ("onnx", "1.20.1", "1.21.0", "CVE-2026-27489"),
    ("jinja2", "3.1.5", "3.1.6", "CVE-2025-27516"),
    ("scikit-learn", "1.4.2", "1.5.0", "CVE-2024-5206"),
    ("keras", "3.13.1", "3.13.2", "CVE-2026-1669"),
]


@pytest.mark.parametrize(("package", "last", "first", "flaw"), FLAWS, ids=[flaw for *_, flaw in FLAWS])
def test_no_exploitable_version_is_declared_or_installed(package, last, first, flaw):
    given = [one for one in DECLARED if one.name.lower() == package]
    assert given
    for one in given:
        assert not one.specifier.contains(last), f"{one} admits {flaw}"
    try:
        installed = Version(metadata.version(package))
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert installed >= Version(first), flaw


def test_nothing_that_is_declared_is_older_here():
    """The environment that the tests speak for is one that the declaration allows."""
    for one in DECLARED:
        try:
            installed = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that is not installed
        assert one.specifier.contains(installed, prereleases=True), f"{one} and {installed}"


def test_whatever_is_imported_is_declared():
    """By the distributions that hold the modules which the package imports, wherever in a file it does so."""
    package = Path(__file__).parent.parent / "ferbench"
    imported = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(str(node.module).partition(".")[0])
    holders, declared = metadata.packages_distributions(), {one.name.lower().replace("_", "-") for one in DECLARED}
    others = {"cv2": "opencv-python-headless", "mlflow": "mlflow-skinny"}  # of extras that may not be installed
    for module in imported - sys.stdlib_module_names - {"ferbench"}:
        names = {others.get(module, module), *holders.get(module, ())}
        assert {name.lower().replace("_", "-") for name in names} & declared, f"{module} is imported and not declared"
