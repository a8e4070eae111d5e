"""The options of a training, which ``ferbench train`` and ``ablate`` share."""

from pathlib import Path
from typing import Annotated

import typer

from ferbench.cli.formats import is_file

Beyond = Annotated[
    str, typer.Option("--recipe", help="paper, or modern: label smoothing, weight averaging, test-time flipping.")
]
Folds = Annotated[str, typer.Option(help="Train these folds only, such as 03 or 01,04 or 01-05.")]
Rule = Annotated[
    str | None, typer.Option(help="Another rule that assigns subjects to folds: step, block, random or file.")
]
FoldsFile = Annotated[Path | None, typer.Option(help="Fold file (CSV) for --rule file.", callback=is_file)]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of fine-tuning; the same as --set finetune.epochs=N.")]
Selection = Annotated[
    str, typer.Option(help="Which epoch is tested: last, or best-val (best on held-out training subjects).")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[
    str, typer.Option(help="fp32, tf32 (GPU) or bf16; auto takes bf16 on CPUs that support it, otherwise fp32.")
]
Engine = Annotated[
    str,
    typer.Option(
        help="Training engine: plain, fast (cached samples and attention maps), compiled, searched (GPU), or auto."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; all cores by default.")]
Jobs = Annotated[
    str, typer.Option(help="Jobs that run in parallel; auto: on a CPU one for each thread, as far as memory allows.")
]
Executor = Annotated[str, typer.Option(help=r"Where jobs run: local, or ray (`pip install 'ferbench\[ray]'`).")]
Address = Annotated[
    str,
    typer.Option(help="Address of a Ray cluster: auto, HOST:PORT or ray://HOST:PORT; by default one is started here."),
]
GpusPerJob = Annotated[float, typer.Option(min=0, help="Ray: GPUs for each job, such as 0.25; 0 uses CPUs only.")]
NoPretrain = Annotated[bool, typer.Option("--no-pretrain", help="Skip pre-training: fine-tune from random weights.")]
Amg = Annotated[
    str, typer.Option(help="Run of a trained Attention Map Generator to use (its key, or how the key begins).")
]
Pretrained = Annotated[
    str,
    typer.Option(
        help="Pre-trained run to fine-tune (its key, or how the key begins): yours, or one that comes with ferbench."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
