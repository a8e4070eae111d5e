"""Groups of verbs in ``ferbench --help``, and the examples below each verb's own help."""

from typing import Any

from ferbench.cli.renamed import Command

DATA = "Data and protocols"
TRAIN = "Training"
REPORT = "Reports and regression checks"
SPEED = "Speed and export"
JUDGE = "Trained models and models of your own"
OTHER = "Environment"


def verb(panel: str | None, *examples: str) -> dict[str, Any]:
    """Arguments of ``Typer.command`` for a verb in a panel, with command lines that show how it is used."""
    lines = [f"Example{'s' if len(examples) > 1 else ''}:", *(one.replace("[", r"\[") for one in examples)]
    return {"cls": Command, "rich_help_panel": panel, "epilog": "\n\n".join(lines)}
