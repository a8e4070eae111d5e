"""What commands share: options and groups of them, names that a shell completes, panels of the help, former names."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from ferbench.report.formats import PLAIN, one_of

if TYPE_CHECKING:
    from ferbench.execution.options import TrainOptions

# Panels of `ferbench --help`.
DATA = "Data and protocols"
TRAIN = "Training"
REPORT = "Reports and regression checks"
SPEED = "Speed and export"
EVALUATE = "Trained models and models of your own"
OTHER = "Environment"

RENAMED = {  # former option names, which still work in this version
    "--reading": "--trial",
    "--readings": "--trials",
    "--protocol-habits": "--leakage",
    "--peer": "--baseline",
    "--why": "--reason",
    "--parallel-folds": "--jobs",
}


Paths = Path | list[Path] | None


def is_file(param: typer.CallbackParam, value: Paths) -> Paths:
    """Refuse a folder where a file belongs: the callback of an option or argument."""
    return _checked(param, value, folder=False)


def is_folder(param: typer.CallbackParam, value: Paths) -> Paths:
    """Refuse a file where a folder belongs: the callback of an option or argument."""
    return _checked(param, value, folder=True)


def _checked(param: typer.CallbackParam, value: Paths, folder: bool) -> Paths:
    from ferbench.files import check_place

    for path in value if isinstance(value, list) else [value]:
        if path is not None:
            check_place(path, param.opts[0], folder)
    return value


DataHome = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the prepared datasets.",
        envvar="FERBENCH_DATA",
        show_default="the platform's data folder",
        callback=is_folder,
    ),
]
Runs = Annotated[
    Path | None,
    typer.Option(help="Folder of the runs.", envvar="FERBENCH_RUNS", show_default="./runs", callback=is_folder),
]
Format = Annotated[str, typer.Option(help=f"Output format: {one_of(PLAIN)}.")]


def methods(incomplete: str) -> list[str]:
    """Return the names of methods that begin so, for shell completion."""
    from ferbench.methods.recipes import names

    return [name for name in names() if name.startswith(incomplete)]


def protocols(incomplete: str) -> list[str]:
    """Return the names of protocols that begin so."""
    from ferbench.protocol.protocol import names

    return [name for name in names() if name.startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    """Return the names of datasets that can be prepared and begin so."""
    from ferbench.data.sources import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]


Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        help="Name of a protocol (see `ferbench protocol list`), or a protocol file.",
        autocompletion=protocols,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Preset of the method, such as tiny or paper (see `ferbench show`); by default the protocol's own."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="FIELD=VALUE", help="Change a hyperparameter, such as finetune.epochs=20; may be repeated."
    ),
]
PredictionPrecision = Annotated[
    str, typer.Option(help="Precision of predictions: fp32, or bf16, which changes a few of them.")
]
PredictionEngine = Annotated[
    str,
    typer.Option(
        help="What runs the network: torch (in `predict` its graph, by onnxruntime), or openvino "
        r"(`pip install 'ferbench\[openvino]'`)."
    ),
]
ShippedPreset = Annotated[str, typer.Option(help="Which shipped weights: tiny, light, wide or full.")]
TrainedOn = Annotated[
    str,
    typer.Option(
        help="Which shipped weights of the preset: those trained on ferplus (tiny only, and its default) or fer2013."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]


@dataclass
class Compute:
    """Where jobs run, and how they are computed."""

    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    precision: Annotated[
        str, typer.Option(help="fp32, tf32 (GPU) or bf16; auto takes bf16 on CPUs that support it, otherwise fp32.")
    ] = "auto"
    engine: Annotated[
        str,
        typer.Option(
            help="Training engine: plain, fast (cached samples and attention maps), compiled, searched (GPU), or auto."
        ),
    ] = "auto"
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")] = None
    jobs: Annotated[
        str,
        typer.Option(help="Jobs that run in parallel; auto: on a CPU one for each thread, as far as memory allows."),
    ] = "auto"
    executor: Annotated[str, typer.Option(help=r"Where jobs run: local, or ray (`pip install 'ferbench\[ray]'`).")] = (
        "local"
    )
    address: Annotated[
        str,
        typer.Option(
            help="Address of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; by default one is started here."
        ),
    ] = ""
    gpus_per_job: Annotated[
        float, typer.Option(min=0, help="Ray: GPUs for each job, such as 0.25; 0 uses CPUs only.")
    ] = 0.0


@dataclass
class Training:
    """What ``ferbench train`` and ``ablate`` train."""

    preset: Preset = None
    folds: Annotated[str, typer.Option(help="Train these folds only, such as 03 or 01,04 or 01-05.")] = ""
    rule: Annotated[
        str | None, typer.Option(help="Another rule that assigns subjects to folds: step, block, random or file.")
    ] = None
    folds_file: Annotated[Path | None, typer.Option(help="Fold file (CSV) for --rule file.", callback=is_file)] = None
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of fine-tuning; the same as --set finetune.epochs=N.")
    ] = None
    selection: Annotated[
        str, typer.Option(help="Which epoch is tested: last, or best-val (best on held-out training subjects).")
    ] = "last"
    no_pretrain: Annotated[
        bool, typer.Option("--no-pretrain", help="Skip pre-training: fine-tune from random weights.")
    ] = False
    amg: Annotated[
        str, typer.Option(help="Run of a trained Attention Map Generator to use (its key, or how the key begins).")
    ] = ""
    pretrained: Annotated[
        str,
        typer.Option(
            help="Pre-trained run to fine-tune (its key, or how the key begins): yours, or one that comes with "
            "ferbench."
        ),
    ] = ""
    pretrain_on: Annotated[
        str,
        typer.Option(
            help="Protocol to pre-train under, such as ferplus, instead of the one that the dataset's protocol names.",
            autocompletion=protocols,
        ),
    ] = ""
    overrides: Overrides = None

    def options(self, method: str, dataset: str, compute: Compute, **changes: Any) -> "TrainOptions":
        """Return the options of a training."""
        from ferbench.execution import options

        values = vars(self) | {"pretrain": not self.no_pretrain, "overrides": tuple(self.overrides or ())} | changes
        del values["no_pretrain"]
        return options.TrainOptions(method, dataset, compute=options.Compute(**vars(compute)), **values)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has one option for each field of its arguments that are dataclasses."""
    groups: dict[str, Any] = {}
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)
        if not is_dataclass(parameter.annotation):
            parameters.append(parameter)
            continue
        group = groups[parameter.name] = parameter.annotation
        hints = get_type_hints(group, include_extras=True)
        for field in fields(group):
            parameters.append(parameter.replace(name=field.name, default=field.default, annotation=hints[field.name]))

    def ungrouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    ungrouped.__name__, ungrouped.__doc__ = command.__name__, command.__doc__
    ungrouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return ungrouped


def described(panel: str | None, *examples: str) -> dict[str, Any]:
    """Return arguments of ``Typer.command`` for a command in a panel, with examples below its help."""
    lines = [f"Example{'s' if len(examples) > 1 else ''}:", *(example.replace("[", r"\[") for example in examples)]
    return {"cls": _Command, "rich_help_panel": panel, "epilog": "\n\n".join(lines)}


class _Command(TyperCommand):
    """A command that also takes the former names of its options, which neither help nor completion shows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        names = {name for param in self.params for name in param.opts}
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [_current(word, names) for word in args[:end]] + args[end:])


def _current(word: str, names: set[str]) -> str:
    """Return a word of a command line, a former option name replaced. names : the options of the command."""
    former, sign, value = word.partition("=")
    name = RENAMED.get(former)
    if name not in names or former in names:
        return word
    print(f"ferbench: {former} is called {name} now; the old name goes away in the next version", file=sys.stderr)
    return f"{name}{sign}{value}"
