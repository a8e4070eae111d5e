"""``ferbench data``: prepare, list, show, verify, synth."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, emit

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a prepared set (see `ferbench data list`).")]


@app.command()
def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="ckplus, oulu, rafdb, celeba, fer2013, ferplus, affectnet, expw, sfew, jaffe, kdef, manifest, "
            "or a drawn set."
        ),
    ],
    source: Annotated[
        Path | None, typer.Argument(help="The folder, archive (zip, tar) or table that you have.")
    ] = None,
    name: Annotated[str, typer.Option(help="Another name for the prepared set.")] = "",
    camera: Annotated[str, typer.Option(help="Oulu: VL (visible light) or NI (near infrared).")] = "VL",
    lighting: Annotated[str, typer.Option(help="Oulu: Strong, Weak or Dark.")] = "Strong",
    align: Annotated[
        str, typer.Option(help="CK+: frame (each by its own landmarks) or sequence (all by the first frame's).")
    ] = "frame",
    ferplus: Annotated[
        Path | None, typer.Option(help="FER2013: fer2013new.csv, labels by majority of its votes.")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="manifest: what its labels mean, such as 0=neutral,1=happiness,8=- (- leaves out).")
    ] = "",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave corrupt images out, and list them.")
    ] = False,
    incomplete: Annotated[bool, typer.Option("--incomplete", help="Accept a copy that lacks whole classes.")] = False,
    data_home: DataHome = None,
) -> None:
    """Turn what is on disk into a prepared set: 48×48 grey arrays, a table of samples, a card. All or nothing."""
    from ferbench.cli.progress import counter
    from ferbench.data.verbs import prepare_set

    with counter(f"preparing {name or dataset}") as tick:
        line = prepare_set(
            dataset, source, data_home, name, camera, lighting, align, ferplus, labels, skip_corrupt, incomplete, tick
        )
    print(line)


@app.command("list")
def list_sets(format: Format = "console", data_home: DataHome = None) -> None:
    """List the prepared sets."""
    from ferbench.data.inventory import prepared
    from ferbench.files import data_home as home

    emit(prepared(home(data_home)), format)


@app.command()
def show(
    name: Name,
    sheet: Annotated[Path | None, typer.Option(help="Also draw a contact sheet into this PNG file.")] = None,
    format: Format = "console",
    data_home: DataHome = None,
) -> None:
    """Show a prepared set: found against expected, and what deviates."""
    from ferbench.data import inventory
    from ferbench.files import data_home as home

    emit(inventory.card(name, home(data_home)), format)
    if sheet:
        inventory.contact_sheet(name, home(data_home), sheet)


@app.command()
def verify(name: Name, format: Format = "console", data_home: DataHome = None) -> None:
    """Hash a prepared set again; exit 3 if anything differs."""
    from ferbench.data.verbs import verify_set

    emit(verify_set(name, data_home), format)


@app.command()
def synth(
    layout: Annotated[str, typer.Argument(help="ckplus, oulu, rafdb, celeba or fer2013.")],
    out: Annotated[Path, typer.Option(help="A new or empty folder.")],
    subjects: Annotated[int, typer.Option(min=1, help="How many people are drawn.")] = 12,
    seed: Annotated[int, typer.Option(help="Same seed, same files.")] = 0,
) -> None:
    """Draw faces in the official on-disk layout of a dataset, to try everything without having it."""
    from ferbench.cli.progress import counter
    from ferbench.data.layouts import write_layout

    with counter(f"drawing {layout}") as tick:
        counts = write_layout(layout, out, subjects, seed, tick)
    print(", ".join(f"{number:,} {what}" for what, number in counts.items()), f"in {out}")
