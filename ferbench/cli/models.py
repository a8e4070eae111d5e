"""``ferbench predict``, ``maps``, ``export``: uses of trained models."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ferbench.cli import options
from ferbench.cli.options import DataHome, Format, Runs, is_folder
from ferbench.cli.output import check_plain, emit

if TYPE_CHECKING:
    from ferbench.inference.predict import Picture

_ENSEMBLE = "; repeat the option for an ensemble (mean of probabilities)."


def predict(
    sources: Annotated[list[Path], typer.Argument(help="Image files, or folders of image files.")],
    run: Annotated[
        list[str] | None,
        typer.Option(help="A run (its key, or how the key begins) or an external model with a card" + _ENSEMBLE),
    ] = None,
    preset: Annotated[
        list[str] | None,
        typer.Option(
            help="Shipped weights to use when no run is given: tiny (the default), light, wide or full" + _ENSEMBLE
        ),
    ] = None,
    trained_on: options.TrainedOn = "",
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Each image is a cropped face already: skip face detection.")
    ] = False,
    draw: Annotated[
        Path | None, typer.Option(help="Folder for images with boxes, labels and attention maps.", callback=is_folder)
    ] = None,
    precision: options.PredictionPrecision = "fp32",
    engine: options.PredictionEngine = "torch",
    format: Format = "console",
    runs: Runs = None,
) -> None:
    """Recognise the expressions of the faces in images."""
    from ferbench.errors import DataError
    from ferbench.inference.models import open_model
    from ferbench.inference.predict import pictures
    from ferbench.inference.predict import predict as recognise
    from ferbench.inference.shipped import shipped_training
    from ferbench.training.arithmetic import Arithmetic

    arithmetic = Arithmetic(precision, engine)
    check_plain(format)
    paths = pictures(sources)
    presets = [] if run else preset or ["tiny"]
    if not run:  # networks of an ensemble have the same classes
        trained_on = trained_on or shipped_training(presets)
    names = [(key, "") for key in run or ()] or [("", name) for name in presets]
    models = [open_model(*name, runs, arithmetic=arithmetic, trained_on=trained_on) for name in dict.fromkeys(names)]
    results = []
    with _counter(len(paths)) as tick:
        for picture in recognise(paths, models, aligned, draw):
            results.append(picture)
            tick(len(results), len(paths))
    if format == "json":
        print(json.dumps([_json(picture) for picture in results], indent=2))
    else:
        names_of_models = " and ".join(model.description for model in models)
        emit([(f"expressions by {names_of_models}", [row for picture in results for row in _rows(picture)])], format)
    if not any(picture.faces for picture in results):
        raise DataError("no face in any of the pictures" + ("" if aligned else ": --aligned takes each as a face"))


def _counter(pictures: int) -> AbstractContextManager[Callable[[int, int], None]]:
    """A progress bar for more pictures than are recognised at once."""
    from ferbench.inference.predict import AT_ONCE

    if pictures <= AT_ONCE:
        return nullcontext(lambda *_: None)
    from ferbench.cli import progress

    return progress.counter("predict", to_stderr=True)


def _json(picture: "Picture") -> dict[str, Any]:
    faces = [
        {
            "box": face.detection and face.detection.box,
            "confidence": face.detection and face.detection.confidence,
            "expression": face.expression,
            "probabilities": face.probabilities,
        }
        for face in picture.faces
    ]
    return {"picture": str(picture.path), "faces": faces, "problem": picture.problem}


def _rows(picture: "Picture") -> list[dict[str, Any]]:
    if not picture.faces:
        return [{"picture": picture.path, "box": "", "expression": picture.problem, "probability": "", "next": ""}]
    rows = []
    for face in picture.faces:
        first, second = sorted(face.probabilities, key=lambda name: -face.probabilities[name])[:2]
        box = "{} {} {}×{}".format(*face.detection.box) if face.detection else "aligned"
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


def maps(
    run: Annotated[
        str,
        typer.Argument(
            help="Run that learned attention maps, or was trained with some: its key, or how the key begins; "
            "by default the shipped one."
        ),
    ] = "",
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="Prepared dataset whose faces are used.")] = "synth",
    preset: Annotated[str, typer.Option(help="Which shipped attention maps: tiny (those of wide) or light.")] = "tiny",
    out: Annotated[
        Path | None, typer.Option(help="Folder for a figure like Figure 6, PNG and SVG.", callback=is_folder)
    ] = None,
    faces: Annotated[int, typer.Option(min=1, help="Number of faces of each expression in the figure.")] = 3,
    format: Format = "console",
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Pointing game: how often the maxima of the attention maps lie on the eyes and on the mouth; and a figure."""
    from ferbench.inference.maps import evaluate_maps

    result = evaluate_maps(run, preset, dataset, out, faces, runs, data_home)
    rows = [
        {
            "map": part.part,
            "maximum on the part": f"{part.share:.1%}",
            "anywhere would be": f"{part.chance:.1%}",
            "images": part.images,
        }
        for part in result.pointing
    ]
    sections = [(f"attention run {result.run} on {result.dataset}", rows)]
    if result.figures:
        sections.append(("figures", [{"file": str(path)} for path in result.figures]))
    emit(sections, format)


def export(
    run: Annotated[
        str,
        typer.Argument(help="Run of a fold or a pre-training: its key, or how the key begins (see `ferbench runs`)."),
    ],
    format: Annotated[str, typer.Option(help="Output format: onnx.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File or folder to write to.", show_default="<run key>.onnx")] = None,
    runs: Runs = None,
) -> None:
    """Export a trained network with its attention maps to one ONNX file, after verifying that its outputs agree."""
    from ferbench.inference.export import BATCHES, COUNT, TOLERANCE, export_run

    done = export_run(run, format, out, runs)
    batches = ", ".join(str(size) for size in BATCHES)
    print(f"wrote {done.path}: {done.size:,} bytes, opset {done.opset}")
    print(
        f"parity with float64: max |Δlogit| / max |logit| = {done.parity.logits:.1e} (allowed {TOLERANCE:.0e}), "
        f"n = {COUNT} images in batches of {batches}"
    )
