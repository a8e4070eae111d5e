"""``ferbench predict``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs, emit


def predict(
    sources: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    run: Annotated[str, typer.Option(help="A trained run: its key or the beginning; the shipped weights if not.")] = "",
    preset: Annotated[str, typer.Option(help="Which shipped weights: tiny, light or wide.")] = "tiny",
    aligned: Annotated[bool, typer.Option("--aligned", help="Each picture is a face already: look for none.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Folder for pictures with boxes, labels, attention maps.")] = None,
    format: Annotated[str, typer.Option(help="console or json.")] = "console",
    runs: Runs = None,
) -> None:
    """Name the expressions of the faces in pictures."""
    from ferbench import predict as work
    from ferbench.errors import DataError, UsageError

    if format not in ("console", "json"):
        raise UsageError(f"unknown format {format!r}: it is console or json")
    paths = work.pictures(sources)
    record, store = work.chosen(run, preset, runs)
    found = list(work.predict(paths, record, store, aligned, draw))
    if format == "json":
        print(json.dumps([_plain(picture) for picture in found], indent=2))
    else:
        emit([(f"expressions by run {record.key} ({record.identity.protocol}, preset {record.identity.preset})",
               [row for picture in found for row in _rows(picture)])], format)  # fmt: skip
    if not any(picture.faces for picture in found):
        raise DataError("no face in any of the pictures" + ("" if aligned else ": --aligned takes each as a face"))


def _plain(picture) -> dict:
    faces = [
        {"box": face.found and face.found.box, "confidence": face.found and face.found.confidence,
         "expression": face.expression, "probabilities": face.probabilities}
        for face in picture.faces
    ]  # fmt: skip
    return {"picture": str(picture.path), "faces": faces, "problem": picture.problem}


def _rows(picture) -> list[dict]:
    if not picture.faces:
        return [{"picture": picture.path, "box": "", "expression": picture.problem, "probability": "", "next": ""}]
    rows = []
    for face in picture.faces:
        first, second = sorted(face.probabilities, key=lambda name: -face.probabilities[name])[:2]
        box = "{} {} {}×{}".format(*face.found.box) if face.found else "aligned"
        rows.append({
            "picture": picture.path, "box": box, "expression": first, "probability": f"{face.probabilities[first]:.1%}",
            "next": f"{second} {face.probabilities[second]:.1%}",
        })  # fmt: skip
    return rows
