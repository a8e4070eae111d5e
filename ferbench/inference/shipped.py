"""Which of the runs that come with ferbench a preset stands for."""

from collections.abc import Sequence

from ferbench import DEFAULT_METHOD
from ferbench.errors import UsageError
from ferbench.methods.interface import PRETRAIN
from ferbench.methods.recipes import resolve
from ferbench.runs.record import Record
from ferbench.runs.store import shipped_by_training

ATTENTION = "attention"  # the kind of run that learned attention maps
BEST_FIRST = ("ferplus", "fer2013")  # networks of one preset: labels of ten people before those of one
_TITLES = {PRETRAIN: "weights", ATTENTION: "attention maps"}


def shipped_training(presets: Sequence[str]) -> str:
    """Return the first of :data:`BEST_FIRST` that shipped networks of all these presets were trained under, or ""."""
    shipped = [shipped_by_training(kind=PRETRAIN, method=DEFAULT_METHOD, preset=preset) for preset in presets]
    return next((name for name in BEST_FIRST if all(name in by_name for by_name in shipped)), "")


def shipped_of(preset: str, kind: str, trained_on: str = "") -> Record:
    """Return the shipped run of a kind that a preset uses.

    trained_on : the protocol that it was trained under; empty: of networks that of :func:`shipped_training`. Raises
    UsageError where there is none.
    """
    method = resolve(DEFAULT_METHOD, preset, "")
    owner, preset_of_owner = method.family.owner(kind, method)
    shipped = shipped_by_training(kind=kind, method=owner, preset=preset_of_owner)
    if not shipped:
        raise UsageError(f"no {_TITLES[kind]} come with ferbench for the preset {preset!r}: name one of your runs")
    wanted = trained_on or (shipped_training([preset]) if kind == PRETRAIN else next(iter(shipped)))
    if wanted not in shipped:
        raise UsageError(f"the {_TITLES[kind]} of {preset} were trained on {' or '.join(shipped)}, not on {wanted}")
    return shipped[wanted]
