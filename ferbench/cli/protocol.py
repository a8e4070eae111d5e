"""``ferbench protocol`` and ``ferbench audit``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import DataHome, Format, emit

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A protocol's name, or a path to a TOML file.")]
Rule = Annotated[str | None, typer.Option(help="Another fold rule: step, block or random.")]
Seed = Annotated[int, typer.Option(help="Seed of --rule random and of stage 1's draw.")]


@app.command("list")
def list_protocols(format: Format = "console") -> None:
    """List the protocols."""
    from ferbench.protocol.verbs import protocols

    emit(protocols(), format)


@app.command()
def show(name: Name, rule: Rule = None, seed: Seed = 0, format: Format = "console", data_home: DataHome = None) -> None:
    """Show a protocol's rules and, where its set is prepared, its folds."""
    from ferbench.protocol.verbs import describe

    emit(describe(name, rule, seed, data_home), format)


@app.command()
def export(
    name: Name,
    out: Annotated[Path, typer.Option(help="The fold file to write: id,subject,label,fold,role.")],
    rule: Rule = None,
    seed: Seed = 0,
    image_folds: Annotated[
        bool,
        typer.Option("--image-folds", help="Images at random, people on both sides: a habit for `audit` to find."),
    ] = False,
    data_home: DataHome = None,
) -> None:
    """Write a protocol's folds as a CSV file, for other tools or --rule file."""
    from ferbench.protocol.verbs import export_folds

    print(export_folds(name, out, rule, seed, image_folds, data_home))


def audit(
    folds: Annotated[Path, typer.Argument(help="A fold file: id,fold and, if it has them, role,subject,label.")],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The prepared set that it splits.")],
    format: Format = "console",
    data_home: DataHome = None,
) -> None:
    """Look for leaks in anybody's split; exit 1 when there are any."""
    from ferbench.protocol.verbs import audit_split, findings_table, verdict

    findings = audit_split(folds, dataset, data_home)
    emit(findings_table(findings), format)
    verdict(findings)
