"""Coverage-guided fuzzing of one reader, where atheris is installed (`pip install atheris`, no dependency of ours):

    python -m tests.fuzz.with_atheris "fold file" -runs=100000 -max_len=4096

Whatever comes after the reader's name is libFuzzer's. It stops at the first file that ends in anything but a result or
one line, and writes that file.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import atheris

with atheris.instrument_imports(include=["ferbench"]):
    from ferbench.errors import FerbenchError
    from fuzz.targets import Target, targets


def main() -> None:
    name, *options = sys.argv[1:]
    home = Path(tempfile.mkdtemp())
    (home / "inside").mkdir()
    (target,) = (one for one in targets(home / "inside", name) if one.name == name)
    corpus = home / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda content: _one(target, content))
    atheris.Fuzz()


def _one(target: Target, content: bytes) -> None:
    with contextlib.suppress(FerbenchError):
        target.read(content)


if __name__ == "__main__":
    main()
