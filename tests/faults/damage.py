"""Every file of a run folder and of a prepared dataset, cut short or with one bit flipped, and what each command makes of it.

A command notices and names the file (exit 3), makes it again and says so, or does not read it at all.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from helpers import ALONE, DAMAGES, FLOOR, Ended, identity, inside, lay, train
from PIL import Image

TRAIN = train(3, *ALONE)
HALF = train(6, *ALONE)
# Files of a run and of a set that a command reads; it does not look at the others.
RECORDS = {"record.json"}
TESTED = RECORDS | {"predictions.csv"}
LEARNED = RECORDS | {"weights.safetensors"}
PREPARED = {"card.json", "samples.csv", "images.npy", "landmarks.npy"}


@dataclass(frozen=True)
class Command:
    """A command with the files that it reads. slow : it takes seconds where nothing is damaged."""

    name: str
    words: Callable[[Path], list[str]]
    reads: set[str]
    slow: bool = False


def network(place: Path) -> str:
    return identity(place, method="small-cnn", fold="01").key


OF_RUNS = (
    Command("runs", lambda place: ["runs"], RECORDS),
    Command("report", lambda place: ["report"], TESTED),
    Command(
        "report --figures",
        lambda place: ["report", "--figures", "drawn", "--format", "json"],
        TESTED | {"history.csv"},
        slow=True,
    ),
    Command(
        "compare",
        lambda place: ["compare", network(place), identity(place, method="largest-class", fold="01").key],
        TESTED,
    ),
    Command("check", lambda place: ["check", "--baseline", "accepted.json"], TESTED),
    Command("predict", lambda place: ["predict", "face.png", "--aligned", "--run", network(place)], LEARNED),
    Command("export", lambda place: ["export", network(place), "--out", "model.onnx"], LEARNED, slow=True),
    Command("evaluate", lambda place: ["evaluate", network(place), "--dataset", "other.toml"], LEARNED),
)
OF_SETS = (
    Command("train", lambda place: [*FLOOR, "--seed", "1"], PREPARED),
    Command("evaluate", lambda place: ["evaluate", network(place), "--dataset", "other.toml"], PREPARED),
    Command("maps", lambda place: ["maps", "--dataset", "other"], PREPARED, slow=True),
    Command(
        "report --errors", lambda place: ["report", "--format", "html", "--errors", "3", "--out", "page.html"], PREPARED
    ),
    Command("protocol show", lambda place: ["protocol", "show", "toy.toml"], PREPARED),
    Command("data verify", lambda place: ["data", "verify", "toy"], PREPARED),
    Command("data show", lambda place: ["data", "show", "toy"], {"card.json"}),
    Command("data list", lambda place: ["data", "list"], {"card.json"}),
)


@dataclass(frozen=True)
class Case:
    """One damage and one command."""

    file: str
    damage: str
    command: Command
    of_set: bool = False

    @property
    def fault(self) -> str:
        return f"{self.file} {self.damage}"

    @property
    def read(self) -> bool:
        return self.file in self.command.reads

    def meet(self, place: Path) -> Ended:
        """Damage the file of a place and run the command there."""
        words = self.command.words(place)
        if self.of_set:
            name = "other" if "other" in " ".join(words) else "toy"
            DAMAGES[self.damage](place / "data" / name / self.file)
        else:
            DAMAGES[self.damage](place / "runs" / network(place) / self.file)
        return inside(words, place)

    def noticed(self, ended: Ended) -> bool:
        """Whether the end is what is promised: a line that names the file, or none of it was read."""
        named = f"{self.file} is damaged" in ended.line or f"{self.file} is not " in ended.line
        return ended.code == 3 and named if self.read else ended.code == 0


def cases(slow: bool) -> Iterator[Case]:
    """All damages and commands. slow : those too whose command takes seconds, as it reads nothing that is damaged."""
    for damage in DAMAGES:
        for file in ("record.json", "identity.json", "predictions.csv", "weights.safetensors", "history.csv"):
            yield from (Case(file, damage, one) for one in OF_RUNS if slow or file in one.reads or not one.slow)
        for file in sorted(PREPARED):
            yield from (Case(file, damage, one, True) for one in OF_SETS)


def ready(place: Path) -> Path:
    """A place with a network and a floor trained, accepted, and another set to be evaluated on."""
    lay(place)
    (place / "baselines" / "accepted").mkdir(parents=True)
    for words in (TRAIN, FLOOR, ["check", "--accept", "--reason", "the first"]):
        done = inside(words, place)
        assert done.code == 0, done.err
    accepted = sorted((place / "baselines" / "accepted").glob("*small-cnn*.json"))
    shutil.copy(accepted[0], place / "accepted.json")
    other = place / "elsewhere"
    lay(other)
    shutil.move(other / "data" / "toy", place / "data" / "other")
    _rename(place / "data" / "other")
    (place / "other.toml").write_text((place / "toy.toml").read_text().replace('"toy"', '"other"'))
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(place / "face.png")
    return place


def _rename(folder: Path) -> None:
    """Make another set of a copy: one image less bright."""
    from ferbench.data import faces, prepare
    from ferbench.data.samples import Aligned, Listing, Sample

    given = faces.load(folder.name, folder.parent, verify=False)
    samples = [
        Sample(
            row.id,
            "drawn",
            lambda at=at: Aligned(given.images[at] // 2, "drawn", np.array(given.landmarks[at])),
            row.label,
            row.subject,
            row.sequence,
            row.frame,
        )
        for at, row in enumerate(given.samples.itertuples(index=False))
    ]
    prepare.write_set(folder.parent, "other", "synth", "squares", Listing("drawn", samples))
