"""``python -m tests.faults --out reports/reliability.md``: meet every fault and write down how each command ended.

Exit code 1 where any of them did not end as promised. Takes a quarter of an hour with ``--kills 60``.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from damage import OF_RUNS, OF_SETS, cases, ready  # noqa: E402
from ends import SCENARIOS, Outcome  # noqa: E402
from helpers import Ended  # noqa: E402
from kills import Log, killed  # noqa: E402

from ferbench.files import write_text  # noqa: E402

HEAD = """# Reliability

What was done to `ferbench`, and how each command ended: its exit code and the last line that it printed. Every row was
really done, on a set of 36 images and a training of two folds, and is a test in `tests/faults`. Written by
`python -m tests.faults --out reports/reliability.md`.

Exit codes: 0 done, 3 data missing or malformed, 4 a job failed (the others are finished and kept), 130 interrupted
(resumable), -9 killed.
"""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        damaged, held = _damage(home)
        outcomes = _ends(home)
        log = killed(home / "kills", options.kills, epochs=200 * max(1, options.kills // 8))
    text = "\n".join([HEAD, *damaged, *_table(outcomes), *_kills(log)])
    write_text(options.out, text + "\n")
    good = held and all(one.held for one in outcomes) and log.same and not log.orphans and log.code == 0
    print("all as promised" if good else "NOT all as promised", options.out)
    return 0 if good else 1


def _damage(home: Path) -> tuple[list[str], bool]:
    world, cells, lines, held = ready(home / "world"), {}, {}, True
    for case in cases(slow=True):
        place = home / "place"
        shutil.copytree(world, place)
        ended = case.meet(place)
        shutil.rmtree(place)
        good = case.noticed(ended)
        held &= good
        what = "names it" if ended.code else "not read"
        cells[case.of_set, case.file, case.damage, case.command.name] = (
            f"{ended.code}, {what}{'' if good else ' **!**'}"
        )
        if ended.code:
            lines.setdefault((case.file, case.damage), _plain(ended, place))
        _say(case.fault, case.command.name, good)
    text = ["## Damaged files", "", "Exit code, and whether the command names the file or does not read it.", ""]
    for of_set, commands, title in ((False, OF_RUNS, "Of a run"), (True, OF_SETS, "Of a prepared dataset")):
        names = [one.name for one in commands]
        text += [f"| {title} | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for file, damage in dict.fromkeys((file, damage) for kind, file, damage, _ in cells if kind == of_set):
            found = [cells[of_set, file, damage, name] for name in names]
            text.append(f"| `{file}`, {damage} | {' | '.join(found)} |")
        text.append("")
    text += [
        "`train` does not reuse a damaged run: it says so, trains it again and ends with the same bytes. A damaged",
        "checkpoint, kept epoch or table of attention maps is deleted and computed again. The messages:",
        "",
    ]
    text += [f"- `{file}`, {damage}: {line}" for (file, damage), line in lines.items()]
    return [*text, ""], held


def _ends(home: Path) -> list[Outcome]:
    found = []
    for name, scenario in SCENARIOS.items():
        place = home / name
        for outcome in scenario(place):
            line = _plain(outcome.ended, place)
            if outcome.command in ("report", "runs") and outcome.ended.code == 0:
                line = "(the table)"
            ended = Ended(outcome.ended.code, line, "", "")
            found.append(Outcome(outcome.fault, outcome.command, ended, outcome.held, outcome.note))
            _say(outcome.fault, outcome.command, outcome.held)
    return found


def _table(outcomes: list[Outcome]) -> list[str]:
    rows = [
        f"| {one.fault} | `{one.command}` | {one.ended.code}{'' if one.held else ' **!**'} | {one.ended.line}"
        f"{f' ({_cell(one.note)})' if one.note else ''} |"
        for one in outcomes
    ]
    return [
        "## Faults of machines and people",
        "",
        "| fault | command | exit | last line |",
        "|---|---|---|---|",
        *rows,
        "",
        "After a kill that nothing can catch there is no last line of its own; what had been printed stands there.",
    ]


def _kills(log: Log) -> list[str]:
    told = "; ".join(f"{seconds:.1f} s: {done}" for seconds, done in log.kills)
    return [
        "",
        "## kill -9, again and again",
        "",
        f"One training of two folds by two processes, {log.epochs} epochs each, was killed {len(log.kills)} times, a",
        f"third of them while it was starting (seed {log.seed}), and then let end: exit {log.code} after "
        f"{log.seconds / 60:.0f} minutes in all.",
        f"{log.files} files of weights, predictions and history are {'the same bytes as' if log.same else 'NOT those'} "
        f"of an undisturbed training. Processes left at work 5 s after a kill: {log.orphans}.",
        "",
        "Seconds from each start to the kill, and the epochs of both folds on disk then:",
        "",
        told,
    ]


def _plain(ended: Ended, place: Path) -> str:
    return _cell(ended.line.replace(f"{place}/", "").replace(str(place), "."))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _say(*words: object) -> None:
    print(*words, sep=" | ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
