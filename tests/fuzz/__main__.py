"""`python -m tests.fuzz`: a campaign, its table, and the files that broke something."""

import argparse
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("KERAS_BACKEND", "torch")

from fuzz.campaign import GOOD, Tally, campaign

PACKAGES = ("numpy", "pandas", "pydantic", "pillow", "safetensors", "onnx", "onnxruntime", "torch", "keras", "h5py")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose names hold this")
    parser.add_argument("--out", type=Path, help="write the table to this Markdown file")
    parser.add_argument("--findings", type=Path, help="a folder for files that broke something")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        tallies = campaign(given.cases, given.seed, Path(home) / "fuzz", given.only, _show)
    broken = [one for one in tallies if set(one.outcomes) - {*GOOD}]
    if given.findings:
        given.findings.mkdir(parents=True, exist_ok=True)
        for one in broken:
            for number, (_, content) in enumerate(one.findings.values()):
                name = "".join(c if c.isalnum() else "-" for c in one.name)
                (given.findings / f"{name}-{number}").write_bytes(content)
    if given.out:
        given.out.write_text(report(tallies, given.seed), encoding="utf-8")
    print(f"{sum(one.cases for one in tallies):,} cases, {len(broken)} targets with findings")
    return 1 if broken else 0


def _show(tally: Tally) -> None:
    ends = ", ".join(f"{count:,} {name}" for name, count in sorted(tally.outcomes.items()))
    print(f"{tally.name:32} {tally.cases:7,} cases {tally.seconds:8.1f} s  {ends}", flush=True)
    for finding in tally.findings:
        print(f"    {finding}", flush=True)


def report(tallies: list[Tally], seed: int) -> str:
    """The table of a campaign as a document."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES if _installed(name))
    rows = [
        f"| {one.name} | {one.cases:,} | {one.outcomes['read']:,} | {one.outcomes['refused']:,} | "
        f"{one.cases - one.outcomes['read'] - one.outcomes['refused']:,} | {1000 * one.seconds / one.cases:.1f} |"
        for one in tallies
    ]
    return "\n".join(
        [
            "# Fuzzing",
            "",
            "Every reader is given damaged and hostile files, made from good ones with a seeded generator: flipped bits, "
            "cuts, copies, parts of other files, deep nesting, huge numbers, control sequences, paths that lead out, "
            "formulas. A case may end in a result or in one line that says what is wrong. A traceback, more than 10 s, "
            "a rise of more than 1.5 GB, a file touched outside the case's folder, a process, a connection or a pickle "
            "is a finding.",
            "",
            f"`python -m tests.fuzz --cases N --seed {seed}`: {sum(one.cases for one in tallies):,} cases. "
            f"Python {platform.python_version()}, {versions}.",
            "",
            "| Reader | Cases | Read | Refused in one line | Findings | ms a case |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
