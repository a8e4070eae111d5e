"""``ferbench data``, ``ferbench protocol`` and ``ferbench audit``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli import options
from ferbench.cli.options import DataHome, Format, described, is_file, is_folder
from ferbench.cli.output import emit

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a prepared dataset (see `ferbench data list`).")]


@app.command(
    **described(
        None,
        "ferbench data prepare ckplus CK+48.zip",
        "ferbench data prepare fer2013 fer2013.zip --ferplus fer2013new.csv",
        'ferbench data prepare manifest faces.csv --name mine --labels "0=neutral,1=happiness,8=-"',
    )
)
def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="ckplus, oulu, rafdb, celeba, fer2013, ferplus, affectnet, expw, sfew, jaffe, kdef, manifest, "
            "or a drawn dataset (synth, synth-sequences, …).",
            autocompletion=options.sources,
        ),
    ],
    source: Annotated[
        Path | None, typer.Argument(help="The folder, archive (zip, tar) or table with the dataset.")
    ] = None,
    name: Annotated[str, typer.Option(help="Another name for the prepared dataset.")] = "",
    camera: Annotated[str, typer.Option(help="Oulu: VL (visible light) or NI (near infrared).")] = "VL",
    lighting: Annotated[str, typer.Option(help="Oulu: Strong, Weak or Dark.")] = "Strong",
    align: Annotated[
        str,
        typer.Option(
            help="CK+: align each frame by its own landmarks (frame), or all by those of the first (sequence). Sets "
            "that come cropped: align by the landmarks that MTCNN's O-Net finds (onet)."
        ),
    ] = "frame",
    ferplus: Annotated[
        Path | None,
        typer.Option(
            help="FER2013: the file fer2013new.csv; labels are then the majority of its votes.", callback=is_file
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="manifest: the meaning of its labels, such as 0=neutral,1=happiness,8=- (- leaves a label out)."
        ),
    ] = "",
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out images that cannot be decoded, and list them.")
    ] = False,
    incomplete: Annotated[
        bool, typer.Option("--incomplete", help="Accept a copy of the dataset in which whole classes are missing.")
    ] = False,
    keep: Annotated[
        str,
        typer.Option(
            help="Longest side in pixels of the pictures that are kept for models that see more than 48 grey pixels, "
            "or none."
        ),
    ] = "512",
    data_home: DataHome = None,
) -> None:
    """Convert a dataset on disk into a prepared one: 48×48 grey images, pictures, a table of samples and a summary."""
    from ferbench.cli.progress import counter
    from ferbench.data.verbs import prepare_set
    from ferbench.errors import UsageError

    if keep != "none" and not (keep.isascii() and keep.isdigit() and 48 <= int(keep) <= 4096):
        raise UsageError(f"--keep is a number of pixels from 48 to 4096, or none, not {keep!r}")
    side = 0 if keep == "none" else int(keep)
    with counter(f"preparing {name or dataset}") as tick:
        line = prepare_set(
            dataset,
            source,
            data_home,
            name,
            camera,
            lighting,
            align,
            ferplus,
            labels,
            skip_corrupt,
            incomplete,
            tick,
            side,
        )
    print(line)


@app.command("list", **described(None, "ferbench data list"))
def list_sets(format: Format = "console", data_home: DataHome = None) -> None:
    """List the prepared datasets."""
    from ferbench.data.verbs import prepared
    from ferbench.files import data_home as home

    emit(prepared(home(data_home)), format)


@app.command(**described(None, "ferbench data show ckplus --sheet ckplus.png"))
def show(
    name: Name,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw a contact sheet into this PNG file.", callback=is_file)
    ] = None,
    format: Format = "console",
    data_home: DataHome = None,
) -> None:
    """Show a prepared dataset: its counts beside the expected ones, and every deviation."""
    from ferbench.data import verbs
    from ferbench.files import data_home as home

    emit(verbs.card(name, home(data_home)), format)
    if sheet:
        verbs.contact_sheet(name, home(data_home), sheet)


@app.command(**described(None, "ferbench data verify ckplus"))
def verify(name: Name, format: Format = "console", data_home: DataHome = None) -> None:
    """Verify the checksums of a prepared dataset. The exit code is 3 if anything differs."""
    from ferbench.data.verbs import verify_set

    emit(verify_set(name, data_home), format)


@app.command(**described(None, "ferbench data synth celeba --out drawn --subjects 8000 --seed 5"))
def synth(
    layout: Annotated[str, typer.Argument(help="ckplus, oulu, rafdb, celeba or fer2013.")],
    out: Annotated[Path, typer.Option(help="Folder to write to; it has to be new or empty.", callback=is_folder)],
    subjects: Annotated[int, typer.Option(min=1, help="How many people are drawn.")] = 12,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
) -> None:
    """Draw synthetic faces in the official file layout of a dataset, to try the whole workflow without its data."""
    from ferbench.cli.progress import counter
    from ferbench.data.synthetic.layouts import write_layout

    with counter(f"drawing {layout}") as tick:
        counts = write_layout(layout, out, subjects, seed, tick)
    print(", ".join(f"{number:,} {what}" for what, number in counts.items()), f"in {out}")


protocol_app = typer.Typer(no_args_is_help=True)

ProtocolName = Annotated[str, typer.Argument(help="A protocol's name, or a path to a TOML file.")]
Rule = Annotated[str | None, typer.Option(help="Another fold rule: step, block or random.")]
Seed = Annotated[int, typer.Option(help="Seed of --rule random and of the sampling of attribute images for stage 1.")]


@protocol_app.command("list", **described(None, "ferbench protocol list"))
def list_protocols(format: Format = "console") -> None:
    """List the evaluation protocols."""
    from ferbench.protocol.verbs import protocols

    emit(protocols(), format)


@protocol_app.command("show", **described(None, "ferbench protocol show ckplus"))
def show_protocol(
    name: ProtocolName, rule: Rule = None, seed: Seed = 0, format: Format = "console", data_home: DataHome = None
) -> None:
    """Show the rules of a protocol and, if its dataset is prepared, its folds."""
    from ferbench.protocol.verbs import describe

    emit(describe(name, rule, seed, data_home), format)


@protocol_app.command(
    "export",
    **described(
        None,
        "ferbench protocol export ckplus --out folds.csv",
        "ferbench protocol export ckplus --image-folds --out leaking.csv",
    ),
)
def export_protocol(
    name: ProtocolName,
    out: Annotated[Path, typer.Option(help="The fold file to write: id,subject,label,fold,role.", callback=is_file)],
    rule: Rule = None,
    seed: Seed = 0,
    image_folds: Annotated[
        bool,
        typer.Option(
            "--image-folds",
            help="Assign images to folds at random, ignoring subjects: this leaks, and `ferbench audit` says so.",
        ),
    ] = False,
    data_home: DataHome = None,
) -> None:
    """Write the folds of a protocol to a CSV file, for other tools or for --rule file."""
    from ferbench.protocol.verbs import export_folds

    print(export_folds(name, out, rule, seed, image_folds, data_home))


def audit(
    folds: Annotated[
        Path,
        typer.Argument(
            help="Fold file (CSV) with the columns id and fold; role, subject and label are optional.", callback=is_file
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The prepared dataset that is split.")],
    format: Format = "console",
    data_home: DataHome = None,
) -> None:
    """Search a train/test split for data leakage. The exit code is 1 if there is any."""
    from ferbench.protocol.verbs import audit_split, findings_table, verdict

    findings = audit_split(folds, dataset, data_home)
    emit(findings_table(findings), format)
    verdict(findings)
