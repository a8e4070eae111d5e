"""``ferbench ablate``."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench import DEFAULT_METHOD
from ferbench.cli import completion, shared
from ferbench.cli.formats import DataHome, Overrides, Preset, Runs, is_file


def ablate(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", "-d", help="Name of a protocol, or a protocol file.", autocompletion=completion.protocols
        ),
    ] = "ckplus",
    method: Annotated[str, typer.Option(help="The method whose variants are trained.")] = DEFAULT_METHOD,
    variants: Annotated[
        str,
        typer.Option(
            help="Only these variants, such as gfnet,lfnet; the full method is always trained for comparison."
        ),
    ] = "",
    leakage: Annotated[
        bool,
        typer.Option(
            "--leakage",
            help="Measure instead how much subject leakage and choosing the epoch on the test set inflate accuracy.",
        ),
    ] = False,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            metavar="FIELD=VALUE",
            help="Try this hyperparameter value instead, on held-out training subjects; repeat the option for "
            "several trials, each of which changes one field.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each variant with the seeds 0 to N-1.")] = 1,
    preset: Preset = None,
    folds: shared.Folds = "",
    rule: shared.Rule = None,
    folds_file: shared.FoldsFile = None,
    epochs: shared.Epochs = None,
    selection: shared.Selection = "last",
    device: shared.Device = "auto",
    precision: shared.Precision = "auto",
    engine: shared.Engine = "auto",
    threads: shared.Threads = None,
    jobs: shared.Jobs = "auto",
    executor: shared.Executor = "local",
    address: shared.Address = "",
    gpus_per_job: shared.GpusPerJob = 0.0,
    no_pretrain: shared.NoPretrain = False,
    amg: shared.Amg = "",
    pretrained: shared.Pretrained = "",
    overrides: Overrides = None,
    dry_run: shared.DryRun = False,
    format: Annotated[str, typer.Option(help="Output format: console, markdown or json.")] = "console",
    out: Annotated[Path | None, typer.Option(help="Write the tables to this file.", callback=is_file)] = None,
    runs: Runs = None,
    data_home: DataHome = None,
) -> None:
    """Ablation study: train a method and its variants under one protocol and compare them. Repeat to resume."""
    from ferbench.cli import progress
    from ferbench.errors import JobFailed
    from ferbench.execution.ablation import prepare_ablation
    from ferbench.execution.training import TrainOptions
    from ferbench.report.verbs import check_format, write_ablation, write_trials

    check_format(format, out)
    options = TrainOptions(
        method=method,
        dataset=dataset,
        preset=preset,
        folds=folds,
        rule=rule,
        folds_file=folds_file,
        epochs=epochs,
        selection=selection,
        device=device,
        precision=precision,
        engine=engine,
        threads=threads,
        pretrain=not no_pretrain,
        amg=amg,
        pretrained=pretrained,
        overrides=tuple(overrides or ()),
        jobs=jobs,
        executor=executor,
        address=address,
        gpus_per_job=gpus_per_job,
        leakage=leakage,
    )
    failure: JobFailed | None = None
    with progress.bars(to_stderr=format != "console") as bars:
        session = prepare_ablation(options, variants, seeds, runs, data_home, bars.drawing, tuple(trials or ()))
        progress.print_plan(session, bars.console)
        if dry_run:
            return
        try:
            progress.carry_out(session, bars, blind=bool(trials))
        except JobFailed as error:  # the tables say what there is, and which folds are missing
            failure = error
    if trials:
        write_trials(session.protocol.name, format, out, runs)
    else:
        write_ablation(session.protocol.name, format, out, runs, session.experiments)
    if failure:
        raise failure
