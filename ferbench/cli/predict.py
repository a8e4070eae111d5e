"""``ferbench predict``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs, check_plain, emit, is_folder

_AGAIN = "; repeat the option for an ensemble (mean of probabilities)."


def predict(
    sources: Annotated[list[Path], typer.Argument(help="Image files, or folders of image files.")],
    run: Annotated[
        list[str] | None, typer.Option(help="A trained run: its key, or how the key begins" + _AGAIN)
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="Shipped weights to use when no run is given: tiny (the default), light, wide or full" + _AGAIN
        ),
    ] = None,
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Each image is a cropped face already: skip face detection.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Folder for images with boxes, labels and attention maps.", callback=is_folder)
    ] = None,
    format: Annotated[str, typer.Option(help="Output format: console or json.")] = "console",
    runs: Runs = None,
) -> None:
    """Recognise the expressions of the faces in images."""
    from ferbench import predict as work
    from ferbench.errors import DataError

    check_plain(format)
    paths = work.pictures(sources)
    names = [(one, "") for one in run or ()] or [("", one) for one in preset or ["tiny"]]
    members = [work.chosen(*one, runs) for one in dict.fromkeys(names)]
    found = list(work.predict(paths, members, aligned, draw))
    if format == "json":
        print(json.dumps([_plain(picture) for picture in found], indent=2))
    else:
        told = " and ".join(f"{one.key} ({one.identity.protocol}, preset {one.identity.preset})" for one, _ in members)
        emit([(f"expressions by run {told}", [row for picture in found for row in _rows(picture)])], format)
    if not any(picture.faces for picture in found):
        raise DataError("no face in any of the pictures" + ("" if aligned else ": --aligned takes each as a face"))


def _plain(picture) -> dict:
    faces = [
        {
            "box": face.found and face.found.box,
            "confidence": face.found and face.found.confidence,
            "expression": face.expression,
            "probabilities": face.probabilities,
        }
        for face in picture.faces
    ]
    return {"picture": str(picture.path), "faces": faces, "problem": picture.problem}


def _rows(picture) -> list[dict]:
    if not picture.faces:
        return [{"picture": picture.path, "box": "", "expression": picture.problem, "probability": "", "next": ""}]
    rows = []
    for face in picture.faces:
        first, second = sorted(face.probabilities, key=lambda name: -face.probabilities[name])[:2]
        box = "{} {} {}×{}".format(*face.found.box) if face.found else "aligned"
        rows.append(
            {
                "picture": picture.path,
                "box": box,
                "expression": first,
                "probability": f"{face.probabilities[first]:.1%}",
                "next": f"{second} {face.probabilities[second]:.1%}",
            }
        )
    return rows
