"""What ``ferbench data prepare`` and ``verify`` do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from ferbench.data.prepare import prepare, verify
from ferbench.data.sources import Options
from ferbench.data.synthetic import SYNTHETIC
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home

_CAMERAS, _LIGHTINGS = ("VL", "NI"), ("Strong", "Weak", "Dark")


def prepare_set(
    dataset: str,
    source: Path | None,
    home: Path | None,
    name: str,
    camera: str,
    lighting: str,
    align: str,
    ferplus: Path | None,
    labels: str,
    skip_corrupt: bool,
    incomplete: bool,
    tick: Callable[[int, int], None],
) -> str:
    """Prepare a set from a source, or draw it. Returns the line that tells what was made."""
    home = data_home(home)
    if dataset in SYNTHETIC:
        from ferbench.data.synthetic.sets import prepare_synthetic

        if source is not None or name:
            raise UsageError(f"{dataset} is drawn: it takes neither a source nor another name")
        card = prepare_synthetic(dataset, home, tick)
    else:
        if source is None:
            raise UsageError(f"say where {dataset} is: `ferbench data prepare {dataset} FOLDER_OR_ARCHIVE`")
        if camera not in _CAMERAS or lighting not in _LIGHTINGS:
            raise UsageError(f"--camera is {' or '.join(_CAMERAS)}, --lighting {', '.join(_LIGHTINGS)}")
        if align not in ("frame", "sequence", "onet") or (align == "sequence" and dataset != "ckplus"):
            raise UsageError(
                "--align is frame, onet for faces that come cropped, or for ckplus sequence: other sets "
                "come without tracks of landmarks"
            )
        if ferplus is not None and dataset != "fer2013":
            raise UsageError("--ferplus belongs to fer2013; the dataset ferplus reads the folders of FERPlus")
        if labels and dataset != "manifest":
            raise UsageError("--labels belongs to manifest: what the numbers of other sets mean is known")
        options = Options(cast(Any, camera), cast(Any, lighting), cast(Any, align), ferplus, labels)
        card = prepare(dataset, source, home, name, options, skip_corrupt, not incomplete, tick)
    sizes = {"images": card.count, "subjects": card.subjects, "sequences": card.sequences}
    found = ", ".join(f"{number:,} {what}" for what, number in sizes.items() if number)
    lines = [f"{card.name}: {found} ({card.layout}); fingerprint {card.fingerprint[:12]}"]
    for counts in card.counts.values():
        if counts:
            lines.append(", ".join(f"{key} {number:,}" for key, number in counts.items()))
    return "\n".join([*lines, *(f"note: {text}" for text in card.deviations)])


def verify_set(name: str, home: Path | None) -> list[tuple[str, dict[str, Any]]]:
    """Verify a set; DataError with all that differs."""
    home = data_home(home)
    problems = verify(name, home)
    if problems:
        raise DataError(f"{home / name} is damaged: {'; '.join(problems)}; prepare it again")
    return [(name, {"pixels": "as noted", "table": "as on the card"})]
