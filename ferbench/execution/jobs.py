"""From requests to jobs with identities: stage 1 once, pre-training once for each method, then every fold."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.files import canonical_json
from ferbench.methods.recipes import Method, resolve
from ferbench.methods.wslgan.recipe import PairStage
from ferbench.methods.wslgan.settings import LossWeights
from ferbench.protocol import image_folds, splits
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.splits import Splits
from ferbench.runs.record import BEST_TEST, FORERUNNERS, START, TEACHER, Identity, Kind, Record
from ferbench.runs.store import Store, shipped_run, shipped_runs, shipped_with
from ferbench.training.schedule import Stage

# Raised when a change of code changes what a training of that kind gives: old runs are then not reused.
REVISION: dict[Kind, int] = {"attention": 2, "pretrain": 1, "fold": 1}


Load = Callable[[str], Faces]  # a prepared set by its name


@dataclass(frozen=True)
class Request:
    """One training as asked for on the command line."""

    method: Method
    protocol: Protocol
    seed: int = 0
    selection: str = "last"
    precision: str = "fp32"
    engine: str = "plain"
    folds: tuple[str, ...] = ()  # all of them when empty
    rule: str | None = None
    folds_file: Path | None = None
    pretrain: bool = True
    amg: str = ""  # key of the attention run to use instead of training one
    command: str = ""  # the command line without its folds: what fills a hole
    changed: tuple[str, ...] = ()  # of the recipe, as given on the command line: what its jobs are told apart by
    image_folds: bool = False  # a habit: only `ferbench ablate --protocol-habits` asks for it, as for best-test
    keep_epochs: bool = False  # until a best-test run has been made of them; no part of the identity


@dataclass(frozen=True)
class Plan:
    """What requests come to: runs to be made or reused, parents first, and runs that come with the package."""

    jobs: list["Job"]
    given: list[Record]


@dataclass(frozen=True)
class Job:
    """One run to be made: its identity, its data, and the request that it belongs to."""

    identity: Identity
    request: Request
    faces: Faces
    splits: Splits | None = None  # of the target set, for folds

    @property
    def kind(self) -> Kind:
        return self.identity.kind

    @property
    def key(self) -> str:
        return self.identity.key

    @property
    def stage(self) -> Stage:
        """The schedule of this training."""
        return _stage(self.request, self.kind)

    @property
    def pair_stage(self) -> PairStage:
        """The schedule of this training, which is one of stage 2."""
        return _pair_stage(self.request, self.kind)

    @property
    def losses(self) -> LossWeights:
        """The weights of the losses of this training, which is one of stage 2."""
        return _losses(self.request, self.kind)

    @property
    def forerunners(self) -> dict[str, Request]:
        """The requests of the pre-trainings that teach this one, or that it goes on from, by the kind of parent."""
        return _forerunners(self.request) if self.kind == "pretrain" else {}

    @property
    def made_from(self) -> str:
        """Of a best-test run, the key of the run whose epochs it tests: the same training, its last epoch taken."""
        if self.identity.selection != BEST_TEST:
            return ""
        return self.identity.model_copy(update={"selection": "last"}).key

    @property
    def folds(self) -> int:
        """How many folds of the same training are asked for, this one among them; 0 for what has none."""
        return len(self.request.folds or self.splits.folds) if self.splits else 0

    @property
    def needs(self) -> list[str]:
        """Keys of the runs that must be done before."""
        return [*self.identity.parents.values(), *([self.made_from] if self.made_from else [])]

    @property
    def title(self) -> str:
        """What a person calls it."""
        by_image = " by image" if self.request.image_folds else ""
        return {
            "attention": f"stage 1: attention maps on {self.faces.name}",
            "pretrain": f"stage 2: pre-training on {self.faces.name}",
            "fold": f"{'best test epoch' if self.made_from else 'stage 2'}: {self.request.protocol.name}{by_image}, "
                    f"fold {self.identity.fold}",
        }[self.kind]  # fmt: skip


def plan(requests: Sequence[Request], home: Path, store: Store) -> Plan:
    """Return all jobs of some requests, each once, in an order in which each comes after its parents: all of
    stage 1, all pre-training, then the folds, each followed by the best-test run that is made of it.

    Where the set of stage 1 or of pre-training is not prepared, the run of the same recipe that comes with the
    package takes the job's place; pre-training brings the attention maps that it was trained with.
    Raises DataError naming the command where a set is not prepared and nothing takes its place, UsageError for
    folds that do not exist or an AMG that does not fit.
    """
    load = cache(lambda name: prepared_sets.load(name, home))
    plans = [_plan(request, load, home, store) for request in requests]
    jobs: dict[str, Job] = {}
    for job in (job for one in plans for job in one.jobs):
        jobs.setdefault(job.key, job)  # what several ask for is the first one's
    given = {record.key: record for one in plans for record in one.given}
    kinds, place = get_args(Kind), {key: number for number, key in enumerate(jobs)}
    ordered = sorted(jobs.values(), key=lambda job: (kinds.index(job.kind), place[job.made_from or job.key]))
    return Plan(ordered, list(given.values()))


def _plan(request: Request, load: Load, home: Path, store: Store) -> Plan:
    """One request's jobs and the runs of the package that take the place of some."""
    protocol = request.protocol
    target = load(protocol.dataset)
    if request.image_folds:
        made = image_folds.make(protocol, target)
    else:
        made = splits.make(protocol, target, request.rule, request.seed, request.folds_file)
    names = [split.fold for split in made.folds]
    if unknown := [fold for fold in request.folds if fold not in names]:
        raise UsageError(f"{protocol.identifier} has no fold {', '.join(unknown)}; it has {', '.join(names)}")
    before, parents = _before(request, load, home, store)
    own = {"split": made.hash, "selection": request.selection, "parents": parents}
    folds = [
        Job(_identity(request, "fold", made.protocol, target, {**own, "fold": fold}), request, target, made)
        for fold in request.folds or names
    ]
    return Plan(before.jobs + folds, before.given)


def _before(request: Request, load: Load, home: Path, store: Store) -> tuple[Plan, dict[str, str]]:
    """What comes before a request's folds, and the parents of these: stage 1, and pre-training after that of others
    that it needs."""
    protocol = request.protocol
    jobs: list[Job] = []
    given: list[Record] = []
    parents: dict[str, str] = {}

    def learned_from(name: str) -> Faces:
        try:
            return load(name)
        except DataError as error:
            presets = _presets_with_weights(request)
            if not presets or name in prepared_sets.prepared(home):
                raise
            named = " or ".join(f"--preset {preset}" for preset in presets)
            raise DataError(f"{error}; or take {named}, whose weights come with ferbench") from None

    pretraining = request.pretrain and bool(protocol.pretrain)
    if pretraining and (record := _in_place_of("pretrain", request, home)):
        kept = {kind: key for kind, key in record.identity.parents.items() if not kind.startswith(FORERUNNERS)}
        parents = {**kept, "pretrain": record.key}
        given = [shipped_runs().record(key) for key in parents.values()]
    else:
        if request.method.recipe.architecture.needs_attention:
            if request.amg:
                parents["attention"] = _given(request, store)
            elif record := _in_place_of("attention", request, home):
                given.append(record)
                parents["attention"] = record.key
            else:
                jobs.append(_attention(request, learned_from))
                parents["attention"] = jobs[-1].key
        if pretraining:
            own = dict(parents)
            for kind, forerunner in _forerunners(request).items():
                above, theirs = _before(forerunner, load, home, store)
                jobs, given = jobs + above.jobs, given + above.given
                own[kind] = theirs["pretrain"]
            jobs.append(_pretrain(request, learned_from, own))
            parents["pretrain"] = jobs[-1].key
    return Plan(jobs, given), parents


def _forerunners(request: Request) -> dict[str, Request]:
    """The requests whose pre-trained networks that of this one needs, by the kind of parent: the same method at other
    presets, as its file has it, whatever was changed here. UsageError where weights to start from do not fit."""
    name, dataset, stage = request.method.name, request.protocol.name, request.method.recipe.pretrain
    presets = {f"{TEACHER}{preset}": preset for preset in stage.teachers}
    presets |= {f"{START}{stage.start}": stage.start} if stage.start else {}
    found = {
        kind: replace(request, method=resolve(name, preset, dataset), amg="", changed=())
        for kind, preset in presets.items()
    }
    if stage.start:
        begun = found[f"{START}{stage.start}"].method.recipe.architecture
        if not request.method.recipe.architecture.takes_weights_of(begun):
            raise UsageError(f"pretrain.start: the network of {name} at preset {stage.start} has other shapes "
                             f"than that at {request.method.preset} here")  # fmt: skip
    return found


def _in_place_of(kind: Kind, request: Request, home: Path) -> Record | None:
    """The shipped run that stands in for a job whose set is not prepared: one of the same recipe, or none."""
    name = request.protocol.attributes if kind == "attention" else request.protocol.pretrain
    protocol = protocols.load_attributes(name) if kind == "attention" else protocols.load(name)
    if protocol.dataset in prepared_sets.prepared(home) or (kind == "pretrain" and request.amg):
        return None
    return shipped_run(
        kind=kind, method=_owner(request, kind), preset=_preset(request, kind), protocol=protocol.identifier,
        recipe=_recipe(request, kind),
    )  # fmt: skip


def _presets_with_weights(request: Request) -> list[str]:
    """The presets with which a request would need no set but its target, as far as it leaves their recipe alone."""
    if request.changed or request.amg or not request.protocol.pretrain:
        return []
    protocol = protocols.load(request.protocol.pretrain).identifier
    found = shipped_with(kind="pretrain", method=request.method.name, protocol=protocol)
    return sorted(record.identity.preset for record in found)


def _attention(request: Request, load: Load) -> Job:
    protocol = protocols.load_attributes(request.protocol.attributes)
    faces = load(protocol.dataset)
    return Job(_identity(request, "attention", protocol.identifier, faces, {}), request, faces)


def _pretrain(request: Request, load: Load, parents: dict[str, str]) -> Job:
    protocol = protocols.load(request.protocol.pretrain)
    faces = load(protocol.dataset)
    return Job(_identity(request, "pretrain", protocol.identifier, faces, {"parents": parents}), request, faces)


def _identity(request: Request, kind: Kind, protocol: str, faces: Faces, more: dict[str, Any]) -> Identity:
    return Identity(
        kind=kind, method=_owner(request, kind), preset=_preset(request, kind), recipe=_recipe(request, kind),
        protocol=protocol, data=faces.fingerprint, seed=request.seed, precision=request.precision,
        engine=request.engine, code=REVISION[kind], **more,
    )  # fmt: skip


def _owner(request: Request, kind: Kind) -> str:
    """The method that a run belongs to: all share one AMG."""
    return "wslgan" if kind == "attention" else request.method.name


def _preset(request: Request, kind: Kind) -> str:
    """The preset that a run belongs to: one that extends another shares its AMG."""
    return (request.method.recipe.amg or request.method.preset) if kind == "attention" else request.method.preset


def _stage(request: Request, kind: Kind) -> Stage:
    """A set without a pre-training set is trained as one would be, without other networks, which saw its test side."""
    recipe = request.method.recipe
    if kind == "attention":
        return recipe.attention
    scratch = kind == "fold" and not request.protocol.pretrain
    if kind == "pretrain":
        return recipe.pretrain
    return recipe.pretrain.alone() if scratch else recipe.finetune


def _recipe(request: Request, kind: Kind) -> dict[str, Any]:
    """What of the recipe decides a training of this kind."""
    recipe, readings = request.method.recipe, request.method.recipe.readings.model_dump()
    content: dict[str, Any]
    if kind == "attention":
        content = {
            "generator": recipe.architecture.generator(),
            "readings": {name: readings[name] for name in ("normalise", "border")},
        }
    else:
        content = {
            "architecture": recipe.architecture.identity(),
            "losses": asdict(_losses(request, kind)),
            "readings": readings,
        }
    return plain({**content, "stage": _stage(request, kind).identity()})


def _pair_stage(request: Request, kind: Kind) -> PairStage:
    stage = _stage(request, kind)
    assert isinstance(stage, PairStage)
    return stage


def _losses(request: Request, kind: Kind) -> LossWeights:
    """The weights of the losses in a training of stage 2."""
    return request.method.recipe.losses_of(_pair_stage(request, kind))


def plain(content: Any) -> Any:
    """Return a value as it will be read back from JSON (tuples are lists), so that both compare equal."""
    return json.loads(canonical_json(content))


def _given(request: Request, store: Store) -> str:
    record = store.find(request.amg)
    wanted = request.method.recipe.architecture.generator()
    if record.identity.kind != "attention" or record.error:
        raise UsageError(f"--amg takes a finished attention run; {record.key} is a {record.identity.kind} run")
    found = record.identity.recipe["generator"]
    if plain(wanted) != found:
        raise UsageError(
            f"the AMG of run {record.key} has another shape ({found}) than {request.method.preset} ({wanted})"
        )
    return record.key
