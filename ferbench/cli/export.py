"""``ferbench export``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs


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
    from ferbench.export import BATCHES, IMAGES, TOLERANCE, export_run

    done = export_run(run, format, out, runs)
    batches = ", ".join(str(size) for size in BATCHES)
    print(f"wrote {done.path}: {done.size:,} bytes, opset {done.opset}")
    print(
        f"parity with float64: max |Δlogit| / max |logit| = {done.parity.logits:.1e} (allowed {TOLERANCE:.0e}), "
        f"n = {IMAGES} images in batches of {batches}"
    )
