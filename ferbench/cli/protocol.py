"""``ferbench protocol`` and ``ferbench audit``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, emit, is_file
from ferbench.cli.options import described

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A protocol's name, or a path to a TOML file.")]
Rule = Annotated[str | None, typer.Option(help="Another fold rule: step, block or random.")]
Seed = Annotated[int, typer.Option(help="Seed of --rule random and of the sampling of attribute images for stage 1.")]


@app.command("list", **described(None, "ferbench protocol list"))
def list_protocols(format: Format = "console") -> None:
    """List the evaluation protocols."""
    from ferbench.protocol.verbs import protocols

    emit(protocols(), format)


@app.command(**described(None, "ferbench protocol show ckplus"))
def show(name: Name, rule: Rule = None, seed: Seed = 0, format: Format = "console", data_home: DataHome = None) -> None:
    """Show the rules of a protocol and, if its dataset is prepared, its folds."""
    from ferbench.protocol.verbs import describe

    emit(describe(name, rule, seed, data_home), format)


@app.command(
    **described(
        None,
        "ferbench protocol export ckplus --out folds.csv",
        "ferbench protocol export ckplus --image-folds --out leaking.csv",
    )
)
def export(
    name: Name,
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
