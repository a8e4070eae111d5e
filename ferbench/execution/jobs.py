"""From requests to jobs with identities: the runs that a method's folds start from, then every fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import check_needs
from ferbench.methods import registry
from ferbench.methods.interface import FOLD, PRETRAIN, Family, Parent
from ferbench.methods.recipes import Method
from ferbench.protocol import image_folds, splits
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import AttributeProtocol, Protocol
from ferbench.protocol.splits import Split, Splits
from ferbench.runs.record import BEST_TEST, Identity, Record
from ferbench.runs.store import Store, shipped_run, shipped_with
from ferbench.schema import plain

Load = Callable[[str], Faces]  # a prepared dataset by its name


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
    given: dict[str, str] = field(default_factory=dict)  # role → key of a finished run to use instead of making one
    command: str = ""  # the command line without its folds: what trains a missing fold
    changed: tuple[str, ...] = ()  # of the recipe, as given on the command line: what its jobs are told apart by
    image_folds: bool = False  # subjects leak: only `ferbench ablate --leakage` asks for it, as for best-test
    keep_epochs: bool = False  # until a best-test run has been made of them; no part of the identity

    @property
    def family(self) -> Family:
        """The family of the method."""
        return self.method.family


@dataclass(frozen=True)
class Plan:
    """What requests come to: runs to be made or reused, parents first, and finished runs that take the place of others:
    those that were named, and those that come with the package."""

    jobs: list["Job"]
    given: list[Record]


@dataclass(frozen=True)
class Job:
    """One run to be made: its identity, its data with the rules by which it learns from them, and its request.

    splits : of the target set, for folds.
    """

    identity: Identity
    request: Request
    faces: Faces
    source: Protocol | AttributeProtocol
    splits: Splits | None = None

    @property
    def kind(self) -> str:
        return self.identity.kind

    @cached_property
    def key(self) -> str:
        return self.identity.key

    @property
    def method(self) -> Method:
        return self.request.method

    @property
    def epochs(self) -> int:
        """Epochs of a training; 0 where it is not counted by epochs."""
        return self.request.family.epochs(self.kind, self.method, self.request.protocol)

    @property
    def all_epochs(self) -> int:
        """Epochs of all its trainings together."""
        return self.epochs * self.trainings

    @property
    def trainings(self) -> int:
        """How many trainings of so many epochs it holds."""
        return self.request.family.trainings.get(self.kind, 1)

    @property
    def made_from(self) -> str:
        """Of a best-test run, the key of the run whose epochs it tests: the same training, its last epoch taken."""
        if self.identity.selection != BEST_TEST:
            return ""
        return self.identity.model_copy(update={"selection": "last"}).key

    @property
    def split(self) -> Split:
        """Of a fold, its training and test set."""
        assert self.splits is not None
        return next(split for split in self.splits.folds if split.fold == self.identity.fold)

    @property
    def folds(self) -> int:
        """How many folds of the same training are asked for, this one among them; 1 for what has none."""
        return len(self.request.folds or self.splits.folds) if self.splits else 1

    @property
    def needs(self) -> list[str]:
        """Keys of the runs that must be done before."""
        return [*self.identity.parents.values(), *([self.made_from] if self.made_from else [])]

    @property
    def title(self) -> str:
        """What a person calls it."""
        stage = self.request.family.titles.get(self.kind, "" if self.kind == FOLD else self.kind)
        if self.kind != FOLD:
            return f"{stage} on {self.faces.name}"
        by_image = " by image" if self.request.image_folds else ""
        stage = "best test epoch" if self.made_from else stage
        return f"{stage}{': ' if stage else ''}{self.request.protocol.name}{by_image}, fold {self.identity.fold}"


def plan(requests: Sequence[Request], home: Path, store: Store) -> Plan:
    """Return all jobs of some requests, each once: those of a kind together, after those that they start from, all
    folds last, each followed by the best-test run that is made of it.

    Where the set that a parent learns from is not prepared, the run of the same recipe that comes with the package
    takes the job's place, and brings the runs that it was itself started from.
    Raises DataError naming the command where a set is not prepared and nothing takes its place, or lacks what the
    method needs; UsageError for folds that do not exist or a given run that does not fit.
    """
    planner = _Planner(home, store)
    plans = [planner.folds(request) for request in requests]
    jobs: dict[str, Job] = {}
    for job in (job for one in plans for job in one.jobs):
        jobs.setdefault(job.key, job)  # what several ask for is the first one's
    given = {record.key: record for one in plans for record in one.given}
    place = {key: number for number, key in enumerate(jobs)}

    @cache
    def depth(key: str) -> int:
        return 1 + max((depth(other) for other in jobs[key].needs if other in jobs), default=0)

    depths: dict[str, int] = {}
    for key, job in jobs.items():
        depths[job.kind] = max(depths.get(job.kind, 0), depth(key))

    def order(job: Job) -> tuple[bool, int, int]:
        return job.kind == FOLD, depths[job.kind], place[job.made_from or job.key]

    return Plan(sorted(jobs.values(), key=order), list(given.values()))


@dataclass
class _Found:
    """What comes before a training: jobs, finished runs in place of jobs, and the keys of its parents by role."""

    jobs: list[Job] = field(default_factory=list)
    given: list[Record] = field(default_factory=list)
    parents: dict[str, str] = field(default_factory=dict)


class _Planner:
    """Plans requests over the same prepared datasets and the same store."""

    def __init__(self, home: Path, store: Store):
        self.home, self.store = home, store
        self.load: Load = cache(lambda name: prepared_sets.load(name, home))
        self.made: dict[tuple[str, str | None, int, Path | None], Splits] = {}

    def folds(self, request: Request) -> Plan:
        """One request's jobs and the finished runs that take the place of some."""
        protocol = request.protocol
        target = self.load(protocol.dataset)
        if request.image_folds:
            made = image_folds.make(protocol, target)
        else:
            seed = request.seed if splits.folds_depend_on_seed(protocol, request.rule) else 0
            made = self.split(protocol, request.rule, seed, request.folds_file)
        check_needs(request.method, protocol, target)
        names = [split.fold for split in made.folds]
        if unknown := [fold for fold in request.folds if fold not in names]:
            raise UsageError(f"{protocol.identifier} has no fold {', '.join(unknown)}; it has {', '.join(names)}")
        before = self.before(FOLD, request)
        if PRETRAIN in request.given.keys() - before.parents.keys():
            raise UsageError(f"{request.method.title} is not pre-trained here: leave out --pretrained")
        own = {"split": made.hash, "selection": request.selection, "parents": before.parents}
        folds = [
            Job(_identity(request, FOLD, made.protocol, target, {**own, "fold": fold}), request, target, protocol, made)
            for fold in request.folds or names
        ]
        return Plan(before.jobs + folds, before.given)

    def split(self, protocol: Protocol, rule: str | None, seed: int, file: Path | None) -> Splits:
        """The folds of a protocol, made once for all trainings that share them."""
        key = protocol.model_dump_json(), rule, seed, file
        if key not in self.made:
            self.made[key] = splits.make(protocol, self.load(protocol.dataset), rule, seed, file)
        return self.made[key]

    def before(self, kind: str, request: Request) -> _Found:
        """What comes before a training of a request, and its parents by role."""
        wanted = request.family.parents(kind, request.method, request.protocol)
        wanted = [parent for parent in wanted if request.pretrain or kind != FOLD or parent.kind != PRETRAIN]
        instead = {parent.role: record for parent in wanted if (record := self.instead(parent, request))}
        own = {parent.role for parent in wanted if parent.method == request.method}
        brought = {  # a finished run brings those that it was itself started from
            role: key for name in own & set(instead) for role, key in instead[name].identity.parents.items()
        }
        if set(brought) & set(request.given):
            raise UsageError(
                "a pre-trained network comes with the attention maps that it was trained on: "
                "name --pretrained or --amg, not both"
            )
        found = _Found()
        for parent in wanted:
            role = parent.role
            if role in brought:
                found.parents[role] = brought[role]
                found.given.append(self.store.holder(brought[role]).record(brought[role]))
            elif role in instead:
                found.parents[role] = instead[role].key
                found.given.append(instead[role])
            else:
                self.made_before(parent, request, found)
        return found

    def made_before(self, parent: Parent, request: Request, found: _Found) -> None:
        """Add the job that a parent is, after what comes before that."""
        if not parent.protocol:
            raise UsageError(
                f"{request.method.title} learns from attributes, and {request.protocol.identifier} "
                "names no protocol of attributes"
            )
        source = protocols.load_any(parent.protocol)
        own = _of(parent, request)
        above = self.before(parent.kind, own)
        faces = self.learned_from(source.dataset, request)
        identity = _identity(own, parent.kind, source.identifier, faces, {"parents": above.parents})
        found.jobs += [*above.jobs, Job(identity, own, faces, source)]
        found.given += above.given
        found.parents[parent.role] = identity.key

    def learned_from(self, name: str, request: Request) -> Faces:
        """A prepared dataset; where it is not there, the error names presets whose weights come with ferbench."""
        try:
            return self.load(name)
        except DataError as error:
            presets = _presets_with_weights(request)
            if not presets or name in prepared_sets.prepared(self.home):
                raise
            named = " or ".join(f"--preset {preset}" for preset in presets)
            raise DataError(f"{error}; or take {named}, whose weights come with ferbench") from None

    def stand_in(self, parent: Parent, request: Request) -> Record | None:
        """The shipped run that stands in for a parent whose set is not prepared: one of the same recipe, or none."""
        if not parent.protocol:
            return None
        protocol, own = protocols.load_any(parent.protocol), _of(parent, request)
        if protocol.dataset in prepared_sets.prepared(self.home):
            return None
        above = own.family.parents(parent.kind, own.method, own.protocol)
        if own.given.keys() & {one.role for one in above}:
            return None
        name, preset = own.family.owner(parent.kind, own.method)
        return shipped_run(
            kind=parent.kind,
            method=name,
            preset=preset,
            protocol=protocol.identifier,
            recipe=plain(own.family.identity(parent.kind, own.method, own.protocol)),
        )

    def instead(self, parent: Parent, request: Request) -> Record | None:
        """The finished run that takes the place of a parent's training: the one that was named, else the package's."""
        if parent.method != request.method or parent.role not in request.given:
            return self.stand_in(parent, request)
        record = self.store.find(request.given[parent.role])
        found = f"{'failed ' if record.error else ''}{record.identity.kind} run"
        if found != f"{parent.kind} run":
            raise UsageError(f"run {record.key} is no finished {parent.kind} run ({found})")
        if parent.kind == PRETRAIN:  # attention maps of any protocol do, also where the target's names none
            source = protocols.load_any(parent.protocol).identifier
            if record.identity.protocol != source:
                raise UsageError(
                    f"{request.protocol.identifier} asks for pre-training under {source}, and run "
                    f"{record.key} was pre-trained under {record.identity.protocol}"
                )
        request.family.check(parent.role, record, request.method, request.protocol)
        return record


def _of(parent: Parent, request: Request) -> Request:
    """The request of a parent: of another method or preset it is as its file has it, whatever was changed here."""
    if parent.method == request.method:
        return request
    return replace(request, method=parent.method, given={}, changed=())


def _presets_with_weights(request: Request) -> list[str]:
    """The presets with which a request would need no set but its target, as far as it leaves their recipe alone."""
    if request.changed or request.given or not request.protocol.pretrain:
        return []
    protocol = protocols.load(request.protocol.pretrain).identifier
    found = shipped_with(kind=PRETRAIN, method=request.method.name, protocol=protocol)
    return sorted(record.identity.preset for record in found)


def _identity(request: Request, kind: str, protocol: str, faces: Faces, more: dict[str, Any]) -> Identity:
    family = request.family
    name, preset = family.owner(kind, request.method)
    recipe = plain(family.identity(kind, request.method, request.protocol))
    if source := registry.source_hash(family):
        recipe["source"] = source
    return Identity(
        kind=kind,
        method=name,
        preset=preset,
        recipe=recipe,
        protocol=protocol,
        data=faces.fingerprint,
        seed=request.seed,
        precision=request.precision if family.torch else "fp64",
        engine=request.engine if family.torch else "plain",
        code=family.revision.get(kind, 1),
        **more,
    )
