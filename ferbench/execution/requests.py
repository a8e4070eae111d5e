"""From options to requests: every name and combination of options is checked here, before anything heavy is loaded.

This module loads neither torch nor pandas, so that a typing error is refused at once.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from ferbench.errors import UsageError
from ferbench.execution.options import TrainOptions, parse_folds, parse_jobs
from ferbench.methods import recipes
from ferbench.methods.interface import FOLD, PRETRAIN, Family, Parent
from ferbench.methods.recipes import Method
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol, Rule
from ferbench.runs.record import BEST_TEST
from ferbench.training.schedule import check_device

SELECTIONS = ("last", "best-val")


@dataclass(frozen=True)
class Request:
    """One training, as requested on the command line.

    folds : names of the folds to train, all if empty. parent_runs : key of the finished run to use for a parent's role
    ("attention", "pretrain") instead of training one. command : the command line without its folds, which trains a
    missing fold. overrides : changes of the recipe by ``--set``, by which its jobs differ from others. changes : all
    that the options change, in words. image_folds : folds leak subjects; only ``ferbench ablate --leakage`` requests
    them, as it does "best-test". keep_epochs : keep the weights of all epochs until a best-test run has used them; no
    part of the identity.
    """

    method: Method
    protocol: Protocol
    seed: int = 0
    selection: str = "last"
    precision: str = "fp32"
    engine: str = "plain"
    folds: tuple[str, ...] = ()
    rule: str | None = None
    folds_file: Path | None = None
    pretrain: bool = True
    parent_runs: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    overrides: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    image_folds: bool = False
    keep_epochs: bool = False

    @property
    def family(self) -> Family:
        """The family of the method."""
        return self.method.family


def requests_of(trainings: Sequence[TrainOptions]) -> list[Request]:
    """Return the requests of some trainings, in their order, with the default precision and engine.

    Raises UsageError for an unknown name or for options that do not go together, DataError for a damaged TOML file.
    """
    for training in trainings:
        compute = training.compute
        check_device(compute.device, compute.precision, compute.engine)
        compute.cluster()
        if compute.jobs != "auto":
            parse_jobs(compute.jobs)
        if training.selection not in SELECTIONS:
            raise UsageError(f"unknown selection {training.selection!r}: it is {' or '.join(SELECTIONS)}")
        if training.rule not in (None, *get_args(Rule)):
            raise UsageError(f"unknown fold rule {training.rule!r}: it is {', '.join(get_args(Rule)[:-1])} or file")
    rules = {name: protocols.load(name) for name in dict.fromkeys(training.dataset for training in trainings)}
    return [request for training in trainings for request in _requests(training, rules[training.dataset])]


def _requests(options: TrainOptions, protocol: Protocol) -> list[Request]:
    """Return one request for a training; to measure leakage, its last and its best test epoch, by subject and image."""
    if options.pretrain_on == protocol.pretrain:  # what the protocol names anyway changes nothing
        options = replace(options, pretrain_on="")
    unbiased = _request(options, protocol)
    if not options.leakage:
        return [unbiased]
    if options.selection != "last" or options.folds or options.rule:
        raise UsageError(
            "--leakage takes the protocol's own folds, all of them, and the last epoch: "
            "leave out --folds, --rule and --selection"
        )
    words = replace(options, seed=0).words("ablate", "--leakage", "--seeds", str(options.seed + 1))
    leaking = replace(unbiased, command=shlex.join(["ferbench", *words]))
    by_image = replace(leaking, image_folds=True)
    return [
        replace(unbiased, keep_epochs=True),
        replace(leaking, selection=BEST_TEST),
        replace(by_image, keep_epochs=True),
        replace(by_image, selection=BEST_TEST),
    ]


def _pretrained_on(options: TrainOptions, protocol: Protocol) -> Protocol:
    """Return a protocol with the pre-training of ``--pretrain-on`` in the place of its own, as its file would name it.

    The name and version stay: the key of a fold follows from that of the pre-trained network.
    """
    if not options.pretrain_on:
        return protocol
    if not options.pretrain:
        raise UsageError("--no-pretrain skips the pre-training that --pretrain-on names: leave out one of them")
    source = protocols.load(options.pretrain_on)
    if source.official is None:
        raise UsageError(f"{source.identifier} has folds; pre-training needs a protocol with an official split")
    if source.dataset == protocol.dataset:
        raise UsageError(
            f"{protocol.identifier} trains on {source.dataset} itself: --pretrain-on names another dataset"
        )
    return protocol.model_copy(update={"pretrain": options.pretrain_on})


def _request(options: TrainOptions, protocol: Protocol) -> Request:
    protocol, overrides = _pretrained_on(options, protocol), options.overrides
    if options.recipe != recipes.PAPER and not protocol.pretrain:
        raise UsageError(
            f"--recipe {options.recipe} changes fine-tuning alone, and {protocol.name} has none: it is "
            f"trained from random weights, as in pre-training"
        )
    preset = options.preset or (protocol.preset if protocol.preset in recipes.presets(options.method) else "")
    method = recipes.resolve(options.method, preset, protocol.name, overrides, options.recipe)
    if options.epochs is not None:  # of a method with pre-training, that is all there is without a set for it
        alone = not protocol.pretrain and PRETRAIN in type(method.recipe).model_fields
        overrides = (*overrides, f"{PRETRAIN if alone else 'finetune'}.epochs={options.epochs}")
        method = recipes.resolve(options.method, preset, protocol.name, overrides, options.recipe)
    kinds = [parent.kind for parent in method.family.parents(FOLD, method, protocol)]
    if options.pretrain_on and PRETRAIN not in kinds:
        raise UsageError(f"{method.title} is not pre-trained: leave out --pretrain-on")
    return Request(
        method=method,
        protocol=protocol,
        seed=options.seed,
        selection=options.selection,
        folds=parse_folds(options.folds),
        rule=options.rule,
        folds_file=options.folds_file,
        pretrain=options.pretrain,
        parent_runs={role: key for role, key in (("attention", options.amg), (PRETRAIN, options.pretrained)) if key},
        command=options.command(),
        overrides=options.overrides,
        changes=options.changes,
    )


def ablation(
    options: TrainOptions, variants: str = "", seeds: int = 1, trials: Sequence[str] = ()
) -> list[TrainOptions]:
    """Return the trainings of ``ferbench ablate``: of a method and each variant, or each trial, with seeds from 0.

    options : what all trainings share; with ``leakage``, the method alone is trained, and tested in four ways.
    variants : names of methods with commas between; empty: all that extend the method. trials : changes of the recipe
    as ``--set`` takes them, each tried alone beside the method, on held-out training subjects ("best-val"), so that no
    test set chooses any. seeds : trains with the seeds from 0 to ``seeds`` - 1.
    Raises UsageError for two of variants, trials and ``leakage``.
    """
    if options.leakage + bool(variants) + bool(trials) > 1:
        raise UsageError("--leakage and --trial measure WS-LGAN, each alone: leave out the others, and --variants")
    if trials:
        options = replace(options, selection="best-val")
        compared = [options, *(replace(options, overrides=(*options.overrides, trial)) for trial in trials)]
    else:
        names = [name.strip() for name in variants.split(",") if name.strip()] or recipes.variants(options.method)
        names = [options.method] if options.leakage else [options.method, *names]
        compared = [replace(options, method=name) for name in dict.fromkeys(names)]
    return [replace(training, seed=seed) for training in compared for seed in range(seeds)]


def parents_of(requests: Sequence[Request]) -> list[Parent]:
    """Return all that the folds of some requests start from, directly or not."""
    parents = []
    waiting = [(FOLD, request.method, request.protocol) for request in requests]
    while waiting:
        kind, method, protocol = waiting.pop()
        for parent in method.family.parents(kind, method, protocol):
            if parent.protocol:
                parents.append(parent)
                waiting.append((parent.kind, parent.method, protocol))
    return parents
