"""From requests to jobs with identities: first the runs that a method's folds start from, then every fold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.execution.requests import Request, parents_of
from ferbench.execution.views import check_needs
from ferbench.methods import recipes
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeSet, HasStages, LearnsAttributes, Parent
from ferbench.methods.recipes import Method, resolve
from ferbench.protocol import leakage, splits
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import AttributeProtocol, Protocol
from ferbench.protocol.splits import Split, Splits
from ferbench.runs.record import BEST_TEST, Identity, Record
from ferbench.runs.store import EPOCHS, Store, shipped_run, shipped_with
from ferbench.schema import plain

LoadFaces = Callable[[str], Faces]  # returns a prepared dataset by its name


@dataclass(frozen=True)
class JobGraph:
    """What requests need: jobs, parents first, and the finished runs that are used instead of training parents.

    These are the runs that options name, and those that come with the package.
    """

    requests: list[Request]
    jobs: list["Job"]
    existing: list[Record]


@dataclass(frozen=True)
class Job:
    """One run to make: its identity, its request, its prepared dataset, and the protocol of that dataset.

    splits : the folds of the target dataset; None for what comes before the folds.
    """

    identity: Identity
    request: Request
    faces: Faces
    source: Protocol | AttributeProtocol
    splits: Splits | None = None

    @property
    def kind(self) -> str:
        """The kind of the run, such as "fold" or "pretrain"."""
        return self.identity.kind

    @cached_property
    def key(self) -> str:
        """The key of the run."""
        return self.identity.key

    @property
    def method(self) -> Method:
        """The method that is trained."""
        return self.request.method

    @property
    def epochs(self) -> int:
        """Epochs of a training; 0 for a method that is not trained by epochs."""
        return self.request.family.epochs(self.kind, self.method, self.request.protocol)

    @property
    def trainings(self) -> int:
        """How many trainings of this number of epochs the job consists of."""
        family = self.request.family
        return family.trainings.get(self.kind, 1) if isinstance(family, HasStages) else 1

    @property
    def all_epochs(self) -> int:
        """Epochs of all its trainings together."""
        return self.epochs * self.trainings

    @property
    def epochs_run(self) -> str:
        """For a best-test run, the key of the run whose epochs it tests: the same training, which tests the last one.

        Empty for all other runs.
        """
        if self.identity.selection != BEST_TEST:
            return ""
        return self.identity.model_copy(update={"selection": "last"}).key

    @property
    def split(self) -> Split:
        """The training and test set of a fold."""
        assert self.splits is not None
        return next(split for split in self.splits.folds if split.fold == self.identity.fold)

    @property
    def folds(self) -> int:
        """How many folds of the same training are requested, this one included; 1 for other kinds."""
        return len(self.request.folds or self.splits.folds) if self.splits else 1

    @property
    def attribute_family(self) -> LearnsAttributes:
        """The family as one that learns from attributes. Raises UsageError where it does not."""
        if not isinstance(family := self.request.family, LearnsAttributes):
            raise UsageError(
                f"{self.method.title} does not learn from attributes, as {self.identity.protocol} would have it"
            )
        return family

    @property
    def training_images(self) -> int:
        """How many samples the job learns from."""
        if isinstance(self.source, AttributeProtocol):
            data = AttributeSet(self.faces, self.source, self.identity.seed)
            return self.attribute_family.attribute_image_count(data)
        return len(self.split.train if self.kind == FOLD else splits.training_sets(self.source, self.faces)[0])

    @property
    def test_images(self) -> int:
        """How many samples a fold tests; 0 for what tests nothing."""
        return len(self.split.test) if self.kind == FOLD else 0

    @property
    def needs(self) -> list[str]:
        """Keys of the runs that must be done before this one."""
        return [*self.identity.parents.values(), *([self.epochs_run] if self.epochs_run else [])]

    @property
    def title(self) -> str:
        """A short description for people."""
        family = self.request.family
        titles = family.titles if isinstance(family, HasStages) else {PRETRAIN: "pre-training"}
        stage = titles.get(self.kind, "" if self.kind == FOLD else self.kind)
        if self.kind != FOLD:
            return f"{stage} on {self.faces.name}"
        by_image = " by image" if self.request.image_folds else ""
        stage = "best test epoch" if self.epochs_run else stage
        return f"{stage}{': ' if stage else ''}{self.request.protocol.name}{by_image}, fold {self.identity.fold}"


def unfinished(job: Job, store: Store) -> list[Path]:
    """Return the folders of unfinished work that a job resumes from, and that are deleted when it is done."""
    epochs = [store.folder(key) / EPOCHS for key in (job.key, job.epochs_run)] if job.epochs_run else []
    return [store.folder(job.key) / "checkpoint", *epochs]


def kept_epochs(job: Job, store: Store) -> list[Path]:
    """Return the weights of every epoch that a best-test run tests, kept by itself or by the training; or none."""
    from ferbench.training.checkpoint import kept

    folders = [store.folder(key) / EPOCHS for key in (job.key, job.epochs_run)]
    return next(filter(None, (kept(folder, job.epochs) for folder in folders)), [])


def share_done(job: Job, store: Store) -> float:
    """Return the share of a job's epochs that are done by its checkpoints, 0 to 1."""
    files = list((store.folder(job.key) / "checkpoint").glob("*.safetensors"))
    if not (files and job.epochs):
        return 0.0
    from ferbench.training.checkpoint import epochs_done

    return sum(map(epochs_done, files)) / job.all_epochs


def check_parents(requests: Sequence[Request], home: Path, store: Store) -> None:
    """Raise what :func:`plan` raises for a parent that is neither prepared nor shipped; loads no torch."""
    planner, known = _Planner(home, store), prepared_sets.prepared(home)
    for request in requests:
        if any(protocols.load_any(parent.protocol).dataset not in known for parent in parents_of([request])):
            planner.parents(FOLD, request)


def plan(requests: Sequence[Request], home: Path, store: Store) -> JobGraph:
    """Return the jobs of some requests, each once, parents before children and folds last.

    Jobs of one kind stand together; a best-test run follows the fold whose epochs it tests. If the dataset of a parent
    is not prepared, the shipped run of the same recipe replaces the job, together with the runs that it started from.
    home : the data home. Raises DataError with the command to run if a dataset is not prepared and nothing replaces
    it, or if it lacks what the method needs; UsageError for unknown folds or a named run that does not fit.
    """
    planner = _Planner(home, store)
    graphs = [planner.graph(request) for request in requests]
    jobs: dict[str, Job] = {}
    for job in (job for graph in graphs for job in graph.jobs):
        jobs.setdefault(job.key, job)  # a job that several requests share keeps the first request
    existing = {record.key: record for graph in graphs for record in graph.existing}
    position = {key: number for number, key in enumerate(jobs)}

    @cache
    def depth(key: str) -> int:
        return 1 + max((depth(need) for need in jobs[key].needs if need in jobs), default=0)

    depths: dict[str, int] = {}
    for key, job in jobs.items():
        depths[job.kind] = max(depths.get(job.kind, 0), depth(key))

    def order(job: Job) -> tuple[bool, int, int]:
        return job.kind == FOLD, depths[job.kind], position[job.epochs_run or job.key]

    return JobGraph(list(requests), sorted(jobs.values(), key=order), list(existing.values()))


@dataclass
class _Parents:
    """What comes before a training: jobs, finished runs instead of jobs, and the keys of the parents by their roles."""

    jobs: list[Job] = field(default_factory=list)
    existing: list[Record] = field(default_factory=list)
    by_role: dict[str, str] = field(default_factory=dict)


class _Planner:
    """Plans requests over the same prepared datasets and the same store."""

    def __init__(self, home: Path, store: Store):
        self.home, self.store = home, store
        self.load: LoadFaces = cache(lambda name: prepared_sets.load(name, home))
        self.splits: dict[tuple[str, str | None, int, Path | None], Splits] = {}

    def graph(self, request: Request) -> JobGraph:
        """Return the jobs of one request, and the finished runs that are used instead of some."""
        protocol = request.protocol
        target = self.load(protocol.dataset)
        if request.image_folds:
            folds = leakage.image_folds(protocol, target)
        else:
            seed = request.seed if splits.folds_depend_on_seed(protocol, request.rule) else 0
            folds = self.make_splits(protocol, request.rule, seed, request.folds_file)
        check_needs(request.method, protocol, target)
        names = [split.fold for split in folds.folds]
        if unknown := [fold for fold in request.folds if fold not in names]:
            raise UsageError(f"{protocol.identifier} has no fold {', '.join(unknown)}; it has {', '.join(names)}")
        parents = self.parents(FOLD, request)
        if PRETRAIN in request.parent_runs.keys() - parents.by_role.keys():
            raise UsageError(f"{request.method.title} is not pre-trained here: leave out --pretrained")
        fields = {"split": folds.hash, "selection": request.selection, "parents": parents.by_role}
        jobs = [
            Job(_identity(request, FOLD, folds.protocol, target, fold=fold, **fields), request, target, protocol, folds)
            for fold in request.folds or names
        ]
        return JobGraph([request], parents.jobs + jobs, parents.existing)

    def make_splits(self, protocol: Protocol, rule: str | None, seed: int, file: Path | None) -> Splits:
        """Return the folds of a protocol, made once for all trainings that share them."""
        key = protocol.model_dump_json(), rule, seed, file
        if key not in self.splits:
            self.splits[key] = splits.make(protocol, self.load(protocol.dataset), rule, seed, file)
        return self.splits[key]

    def parents(self, kind: str, request: Request) -> _Parents:
        """Return what comes before a training of a request."""
        wanted = request.family.parents(kind, request.method, request.protocol)
        wanted = [parent for parent in wanted if request.pretrain or kind != FOLD or parent.kind != PRETRAIN]
        finished = {parent.role: run for parent in wanted if (run := self.finished_run(parent, request))}
        same_method = {parent.role for parent in wanted if parent.method == request.method}
        inherited = {  # a finished run comes with the runs that it started from
            role: key for name in same_method & set(finished) for role, key in finished[name].identity.parents.items()
        }
        if set(inherited) & set(request.parent_runs):
            raise UsageError(
                "a pre-trained network comes with the attention maps that it was trained on: "
                "name --pretrained or --amg, not both"
            )
        parents = _Parents()
        for parent in wanted:
            role = parent.role
            if role in inherited:
                parents.by_role[role] = inherited[role]
                parents.existing.append(self.store.holder(inherited[role]).record(inherited[role]))
            elif role in finished:
                parents.by_role[role] = finished[role].key
                parents.existing.append(finished[role])
            else:
                self.add_job(parent, request, parents)
        return parents

    def add_job(self, parent: Parent, child: Request, parents: _Parents) -> None:
        """Add the job that trains a parent, after the jobs of its own parents."""
        if not parent.protocol:
            raise UsageError(
                f"{child.method.title} learns from attributes, and {child.protocol.identifier} "
                "names no protocol of attributes"
            )
        source = protocols.load_any(parent.protocol)
        request = _parent_request(parent, child)
        grandparents = self.parents(parent.kind, request)
        faces = self.load_source(source.dataset, child)
        identity = _identity(request, parent.kind, source.identifier, faces, parents=grandparents.by_role)
        parents.jobs += [*grandparents.jobs, Job(identity, request, faces, source)]
        parents.existing += grandparents.existing
        parents.by_role[parent.role] = identity.key

    def load_source(self, name: str, request: Request) -> Faces:
        """Return a prepared dataset; if it is missing, the error names the presets whose weights are shipped."""
        try:
            return self.load(name)
        except DataError as error:
            presets = _presets_with_weights(request)
            if not presets or name in prepared_sets.prepared(self.home):
                raise
            named = " or ".join(f"--preset {preset}" for preset in presets)
            raise DataError(f"{error}; or take {named}, whose weights come with ferbench") from None

    def shipped_parent(self, parent: Parent, child: Request) -> Record | None:
        """Return the shipped run of a parent's recipe if the parent's dataset is not prepared; None otherwise."""
        if not parent.protocol:
            return None
        protocol, request = protocols.load_any(parent.protocol), _parent_request(parent, child)
        if protocol.dataset in prepared_sets.prepared(self.home):
            return None
        grandparents = request.family.parents(parent.kind, request.method, request.protocol)
        if request.parent_runs.keys() & {grandparent.role for grandparent in grandparents}:
            return None
        name, preset = request.family.owner(parent.kind, request.method)
        return shipped_run(
            kind=parent.kind,
            method=name,
            preset=preset,
            protocol=protocol.identifier,
            recipe=plain(request.family.identity(parent.kind, request.method, request.protocol)),
        )

    def finished_run(self, parent: Parent, request: Request) -> Record | None:
        """Return the finished run to use instead of training a parent: the named one, else a shipped one, else None."""
        if parent.method != request.method or parent.role not in request.parent_runs:
            return self.shipped_parent(parent, request)
        record = self.store.find(request.parent_runs[parent.role])
        kind = f"{'failed ' if record.error else ''}{record.identity.kind} run"
        if kind != f"{parent.kind} run":
            raise UsageError(f"run {record.key} is no finished {parent.kind} run ({kind})")
        if parent.kind == PRETRAIN:  # attention maps of any protocol will do, even if the target's protocol names none
            source = protocols.load_any(parent.protocol).identifier
            if record.identity.protocol != source:
                raise UsageError(
                    f"{request.protocol.identifier} asks for pre-training under {source}, and run "
                    f"{record.key} was pre-trained under {record.identity.protocol}"
                )
        request.family.check_parent(parent.role, record, request.method, request.protocol)
        return record


def _parent_request(parent: Parent, request: Request) -> Request:
    """Return the request of a parent. A parent of another method or preset takes its recipe without any changes."""
    if parent.method == request.method:
        return request
    return replace(request, method=parent.method, parent_runs={}, overrides=())


def _presets_with_weights(request: Request) -> list[str]:
    """Return the presets with which a request would need no dataset but its target, if its recipe is not changed."""
    if request.overrides or request.parent_runs or not request.protocol.pretrain:
        return []
    protocol = protocols.load(request.protocol.pretrain).identifier
    identities = [run.identity for run in shipped_with(kind=PRETRAIN, method=request.method.name, protocol=protocol)]
    return sorted(run.preset for run in identities if run.recipe == _pretraining_recipe(run.preset, request))


def _pretraining_recipe(preset: str, request: Request) -> Any:
    """Return the recipe in the identity of the pre-training of a request's method at another preset."""
    method = resolve(request.method.name, preset, request.protocol.name)
    return plain(method.family.identity(PRETRAIN, method, request.protocol))


def _identity(request: Request, kind: str, protocol: str, faces: Faces, **fields: Any) -> Identity:
    family = request.family
    name, preset = family.owner(kind, request.method)
    recipe = plain(family.identity(kind, request.method, request.protocol))
    if source := recipes.source_hash(family):
        recipe["source"] = source
    recipe |= faces.pictures_identity(family.view(request.method))
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
        **fields,
    )
