"""The schema of a speed record, ``runs/speed/<key>.json``: what was timed, on which machine, and the results.

The fields of :class:`SpeedRow` are the keys of ``ferbench bench --format json`` and the columns of csv.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ferbench.errors import DataError
from ferbench.files import canonical_json, sha256_of, write_json
from ferbench.schema import Schema, read_sealed

_REMEDY = "delete it and time again"
_ADDED = ("accuracy", "accuracy_images", "accuracy_run")  # fields that older records lack


class SpeedRow(Schema):
    """One measurement. Intervals are 95 %, by bootstrap over blocks; a figure that does not exist is null."""

    what: str  # inference, fe, amg, step, epoch, prepare
    method: str
    preset: str
    engine: str
    precision: str
    backend: str  # torch, onnxruntime, openvino
    device: str
    threads: int
    batch: int  # images in one call
    scenario: str  # single-stream, offline, evaluate, training, preparation; server in older records
    blocks: int
    calls: int
    images_per_s: float
    images_per_s_low: float
    images_per_s_high: float
    p50_ms: float | None = None  # of single calls
    p90_ms: float | None = None
    p99_ms: float | None = None
    bound_ms: float | None = None  # older records: bound of p99 of the server scenario, which is no longer measured
    cold_start_s: float
    peak_mb: float
    joules_per_1000: float | None = None  # older records: energy, which is no longer measured
    gflop_per_image: float | None = None
    mb_per_image: float | None = None
    share_of_flops: float | None = None  # of the ceiling measured in the same run
    share_of_bytes: float | None = None
    ratio_naive: float | None = None
    ratio_naive_low: float | None = None
    ratio_naive_high: float | None = None
    ratio_strong: float | None = None
    ratio_strong_low: float | None = None
    ratio_strong_high: float | None = None
    error: float | None = None  # largest difference to float64, relative; of losses over 20 steps for training
    agree: float | None = None  # share of images with float64's class
    bound: float | None = None  # the error that this precision may have
    accuracy: float | None = None  # of trained weights in this precision and backend, on images of FER2013's PublicTest
    accuracy_images: int | None = None
    accuracy_run: str | None = None  # the shipped run that has these weights
    valid: bool = True  # false: the error exceeds its bound, so the speed is not valid


class SpeedRecord(Schema):
    """One run of ``ferbench bench``: all rows were timed in alternation in one process."""

    schema_version: Literal[1] = 1
    mode: str  # quick, standard
    seed: int
    environment: dict[str, Any]
    ceilings: dict[str, dict[str, float]]  # by precision: flops_per_s and bytes_per_s
    noise: float  # relative half-width of the interval when one workload is compared with itself
    rows: list[SpeedRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """Check that the free tables have what reports read."""
        if not isinstance(self.environment.get("device"), str):
            raise ValueError("environment names no device")
        if any({"flops_per_s", "bytes_per_s"} - {*ceiling} for ceiling in self.ceilings.values()):
            raise ValueError("a ceiling has flops_per_s and bytes_per_s")
        return self

    @property
    def key(self) -> str:
        """16 hexadecimal digits of the content."""
        content = self.model_dump()
        for row in content["rows"]:
            for name in _ADDED:  # so that older records keep their keys
                if row[name] is None:
                    del row[name]
        return sha256_of(canonical_json(content).encode())[:16]


def store(home: Path, record: SpeedRecord) -> Path:
    """Write a speed record among the runs and return its path."""
    path = home / "speed" / f"{record.key}.json"
    write_json(path, record.model_dump())
    return path


def stored(home: Path) -> list[SpeedRecord]:
    """Return all speed records, sorted by key. Raises DataError for a damaged one."""
    records = []
    for path in sorted((home / "speed").glob("*.json")):
        record = read_sealed(SpeedRecord, path, _REMEDY)
        if record.key != path.stem:
            raise DataError(f"{path} is damaged (it is not what was stored): {_REMEDY}")
        records.append(record)
    return records
