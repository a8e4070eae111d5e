"""The schema of ``record.json``: what a run was, on what, and what came of it."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ferbench.files import canonical_json, sha256_of
from ferbench.runs.facts import check as check_tables
from ferbench.schema import Name, Schema, plain_name

Key = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]  # of a run: also its folder, so nothing else may stand there
Kind = str  # of run: "fold", "transfer", or what a family trains before its folds ("attention", "pretrain", …)

BEST_TEST = "best-test"  # a selection, and
IMAGE_FOLDS = "+image-folds"  # the end of a protocol's name: subjects leak, which is measured but never a result

TEACHER = "teacher "  # and a preset: the kind, among its parents, of a run that taught a pre-training, and
START = "start "  # of one whose network it went on from
FORERUNNERS = (TEACHER, START)
TABLES = {"readings": "interpretation"}  # tables of recipes: names in records → names in files, --set and messages


class Identity(Schema):
    """All that decides a run's bytes. The run's key is the hash of this.

    A change in any field is another run; what is not in here (device name, paths, clock) must not
    change a result beyond the last bits of arithmetic.
    """

    # attention = stage 1; pretrain = stage 2 on the pre-training set; fold = fine-tuning + test;
    # transfer = a finished run tested on another set, with nothing learned there
    kind: Kind
    method: str  # a name of baselines/*.toml; of what several share, that whose it is
    preset: str
    recipe: dict[str, Any]  # what decides this training: shapes, losses, readings, schedule ("stage")
    protocol: Annotated[
        str, AfterValidator(lambda name: name and plain_name(name))
    ]  # "ckplus@1"; of the set trained on; "ckplus@1+image-folds" leaks subjects
    data: str  # fingerprint of the prepared dataset
    split: str = ""  # hash of the fold file; attention and pretrain follow from protocol, data and seed
    fold: str = ""  # "01".."10" or "official"; "" where there are no folds
    selection: str = "last"  # or "best-val"; "best-test" is chosen on the test set
    seed: int
    precision: str  # "fp32", "tf32", "bf16"
    engine: str = "plain"  # of training.device.ENGINES
    code: int  # revision of the code that decides a result (execution.jobs.REVISION)
    parents: dict[str, Key] = Field(default_factory=dict)  # keys of the runs this one starts from, by kind

    @property
    def leaks(self) -> bool:
        """Whether data leakage inflates the run's accuracy: it measures by how much, and is no result."""
        return self.selection == BEST_TEST or self.protocol.endswith(IMAGE_FOLDS)

    @property
    def key(self) -> str:
        """16 hexadecimal digits, the run's folder."""
        return sha256_of(canonical_json(self.model_dump()).encode())[:16]

    @property
    def experiment(self) -> str:
        """8 hexadecimal digits shared by all folds of one training: the identity without its fold."""
        return sha256_of(canonical_json(self.model_dump(exclude={"fold"})).encode())[:8]


class Record(Schema):
    """``record.json``, written last: its presence means the run is done (or failed, if it has an error)."""

    schema_version: Literal[1] = 1
    key: Key
    experiment: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    identity: Identity
    dataset: Name  # of the prepared dataset trained on
    classes: list[str]  # order of the columns p_<class>; ["absent", "present"] for attention
    environment: dict[str, Any]  # versions, machine, commit: see environment.describe
    facts: dict[str, Any]  # what was asserted and counted: images, subjects, parameters, notes
    timings: dict[str, float]  # seconds by phase
    result: dict[str, Any] = Field(default_factory=dict)  # small summary; metrics proper are recomputed
    error: str = ""  # one line; empty when the run is done
    files: dict[Name, str] = Field(default_factory=dict)  # SHA-256 of the run's files by name; none in older records
    digest: str = ""  # of this record (files.seal); empty in older records

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        """Everything that others rely on is there, and of its kind; what only some family knows is left alone."""
        if not self.error:
            check_tables(self.environment, self.facts, self.result, self.identity.kind, self.identity.fold)
        return self

    @classmethod
    def of(cls, identity: Identity, **fields: Any) -> Self:
        """Return the record of a run; its key and experiment follow from its identity."""
        return cls(key=identity.key, experiment=identity.experiment, identity=identity, **fields)
