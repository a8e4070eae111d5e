"""``ferbench maps``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, Runs, emit, is_folder


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
    from ferbench.maps import evaluate_maps

    result = evaluate_maps(run, preset, dataset, out, faces, runs, data_home)
    rows = [
        {
            "map": row.part,
            "maximum on the part": f"{row.share:.1%}",
            "anywhere would be": f"{row.chance:.1%}",
            "images": row.images,
        }
        for row in result.pointing
    ]
    sections = [(f"attention run {result.run} on {result.dataset}", rows)]
    if result.figures:
        sections.append(("figures", [{"file": str(path)} for path in result.figures]))
    emit(sections, format)
