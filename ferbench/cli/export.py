"""``ferbench export``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import Runs


def export(
    run: Annotated[str, typer.Argument(help="A fold or pretrain run: its key or the beginning (see `ferbench runs`).")],
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
    out: Annotated[Path | None, typer.Option(help="File or folder to write to.", show_default="<run key>.onnx")] = None,
    runs: Runs = None,
) -> None:
    """Write a trained network with its attention maps as one ONNX file, once its results are proven the same."""
    from ferbench.export import BATCHES, IMAGES, TOLERANCE, export_run

    done = export_run(run, format, out, runs)
    batches = ", ".join(str(size) for size in BATCHES)
    print(f"wrote {done.path}: {done.size:,} bytes, opset {done.opset}")
    print(f"parity with float64: max |Δlogit| / max |logit| = {done.parity.logits:.1e} (allowed {TOLERANCE:.0e}), "
          f"n = {IMAGES} images in batches of {batches}")  # fmt: skip
