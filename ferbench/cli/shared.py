"""The options of a training, which ``ferbench train`` and ``ablate`` share."""

from pathlib import Path
from typing import Annotated

import typer

Beyond = Annotated[
    str,
    typer.Option("--recipe", help="paper, or modern: smoothed labels, averaged weights, mirrored tests."),
]
Folds = Annotated[str, typer.Option(help="Only these folds: 03 or 01,04 or 01-05.")]
Rule = Annotated[str | None, typer.Option(help="Another fold rule: step, block, random or file.")]
FoldsFile = Annotated[Path | None, typer.Option(help="Fold file for --rule file.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of the last stage; short for --set finetune.epochs=N.")]
Selection = Annotated[str, typer.Option(help="last: the last epoch. best-val: best on held-out training subjects.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[
    str, typer.Option(help="fp32, tf32 (GPU) or bf16; auto: bf16 on CPUs that are made for it, else fp32.")
]
Engine = Annotated[str, typer.Option(help="auto, plain or fast: how steps are carried out.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores when left out.")]
Jobs = Annotated[
    str,
    typer.Option(
        "--jobs", "--parallel-folds",
        help="Jobs at a time, in a process each; auto: on a CPU one for each thread, as far as memory allows.",
    ),
]  # fmt: skip
Executor = Annotated[str, typer.Option(help=r"Where jobs are made: local, or ray (`pip install 'ferbench\[ray]'`).")]
Address = Annotated[
    str, typer.Option(help="Of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; one is started here when left out.")
]
GpusPerJob = Annotated[float, typer.Option(min=0, help="Ray: GPUs of each job, such as 0.25; 0 takes CPUs alone.")]
NoPretrain = Annotated[bool, typer.Option("--no-pretrain", help="Fine-tune from random weights.")]
Amg = Annotated[str, typer.Option(help="Run of a trained AMG to use (key or its beginning).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
