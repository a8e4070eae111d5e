"""What a tested run tells of itself, whatever method it is of, and what holds where it is silent.

Runs of before these facts were recorded were all of one kind: trainings of images, tested on people they had not seen.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from ferbench.runs import families
from ferbench.runs.facts import HeldOut
from ferbench.runs.record import Identity, Record

Level = Literal["image", "sequence"]

LEVELS: tuple[Level, Level] = ("image", "sequence")
SEQUENCES = "-sequences"  # ends the name of a protocol that tests whole sequences of the set before it
DRAWN = "synth"  # begins the name of every set that ferbench draws
_CHANGES = {
    "--set": "{}",
    "--epochs": "epochs={}",
    "--recipe": "recipe={}",
    "--amg": "attention maps of run {}",
    "--pretrained": "pre-trained weights of run {}",
}
FEW = "3 frames"  # begins what a method of sequences sees where the set has no more


@dataclass(frozen=True)
class Told:
    """The facts of one tested run.

    level : what one prediction is of. sees : what of it the method reads, in words. trained_on : the protocols of
    all that was learned from, first to last. held_out : whether nothing of what is tested was learned from. seen : the
    ids of tested samples that were.
    uncalibrated : the scores are no probabilities. differs : what is not as in the original, a sentence each.
    changed : what the command changed of the preset.
    """

    title: str
    published: str
    level: Level
    sees: str
    trained_on: list[str]
    held_out: HeldOut
    seen: list[str]
    uncalibrated: bool
    differs: list[str]
    changed: list[str]


def told(record: Record, records: Mapping[str, Record]) -> Told:
    """Return a record's facts. records : by key, those that it may start from."""
    facts, identity = record.facts, record.identity
    level: Level = facts.get("level", "image")
    sees = facts.get("sees") or level
    return Told(
        titled(facts.get("display") or identity.method, sees),
        facts.get("published", ""),
        level,
        sees,
        _trained_on(facts, identity, records),
        _held_out(record, records),
        list(facts.get("seen", [])),
        bool(facts.get("uncalibrated")),
        list(facts.get("differs") or facts.get("method", {}).get("differs", [])),
        _changed(str(facts.get("command", ""))),
    )


def _held_out(record: Record, records: Mapping[str, Record]) -> HeldOut:
    """What a run recorded. One of before has a word at most: of a training, whose people were kept apart by its split,
    and of a finished model, of which names tell what the word did not."""
    facts, tested = record.facts, record.identity.protocol
    recorded = facts.get("held_out", True)
    if isinstance(recorded, dict):
        return HeldOut.model_validate(recorded)
    authors = facts.get("trained_as") == "elsewhere"
    if recorded is True and record.identity.kind == "transfer":
        names = _trained_on(facts, record.identity, records)
        return families.by_names(names, (tested, record.dataset), families.family(tested), authors)
    if recorded == "unknown":
        return HeldOut(status="unknown")
    return HeldOut(status="yes" if recorded else "no", by="authors" if authors else "names")


def _changed(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    found = [_CHANGES[option].format(value) for option, value in pairwise(words) if option in _CHANGES]
    return [*found, "no pre-training"] if "--no-pretrain" in words else found


def titled(title: str, sees: str) -> str:
    """A method's title, marked where it saw three frames of each sequence only."""
    return f"{title} ({FEW})" if sees.startswith(FEW) and not title.endswith(f"({FEW})") else title


def _trained_on(facts: Mapping[str, Any], identity: Identity, records: Mapping[str, Record]) -> list[str]:
    """What a run recorded, else the protocols of all its forerunners and, of a training, its own."""
    recorded = facts.get("trained_on")
    if recorded is not None:
        return [recorded] if isinstance(recorded, str) else list(recorded)
    return list(dict.fromkeys(_protocols(identity, records)))


def _protocols(identity: Identity, records: Mapping[str, Record]) -> list[str]:
    found = []
    for key in identity.parents.values():
        found += _protocols(records[key].identity, records) if key in records else [f"run {key}"]
    return found if identity.kind == "transfer" else [*found, identity.protocol]


def epochs(identity: Identity) -> int:
    """Epochs of a training, 0 where it is not counted by epochs."""
    stage = identity.recipe.get("stage")
    return int(stage.get("epochs", 0)) if isinstance(stage, dict) else 0


def set_of(protocol: str) -> str:
    """Return the set whose report a protocol stands in: ``ckplus-sequences@1`` beside ``ckplus@1``.

    Both test the same people, sequences whole in one and image by image in the other. Of drawn faces each set has
    people of its own, and its report.
    """
    name = protocol.partition("@")[0]
    return name if is_drawn(name) else name.removesuffix(SEQUENCES)


def asked_for(identity: Identity, dataset: str | None) -> bool:
    """Whether a run belongs to the report of ``dataset``: of a set, or of a protocol of sequences alone."""
    return dataset in (None, identity.protocol.partition("@")[0], set_of(identity.protocol))


def is_drawn(dataset: str) -> bool:
    """Whether ferbench draws the faces of this set."""
    return dataset.startswith(DRAWN)
