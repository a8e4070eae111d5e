"""A finished run as one ONNX file, with the proof that it computes what the run's network computes.

The graph takes images uint8 [N,1,48,48], or of the size and colour that the method sees, N free. It gives ``logits``
float32 [N,K] and, where the method has attention, ``maps`` float32 [N,2,H,W]. Its metadata say how to prepare an image
and what the logits stand for. A file whose results are not those of the network is never written.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench import __version__
from ferbench.data.align import TEMPLATE
from ferbench.data.views import IMAGES, View
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import check_place, write_bytes
from ferbench.inference.models import StoredRun, open_run
from ferbench.runs.record import Record
from ferbench.seeds import generator

if TYPE_CHECKING:
    import onnxruntime

    from ferbench.training.networks import Deployable

FORMATS = ("onnx",)
TOLERANCE = 1e-4  # of the largest logit, and of the range of the maps
COUNT = 64  # images that the parity is measured on
BATCHES = (1, 2, 64)


@dataclass(frozen=True)
class Parity:
    """How far a file is from the network in float64, over some images at each of :data:`BATCHES`.

    logits : max |Δlogit| / max |logit|. maps : max |Δ| of the attention maps, which lie in [0,1]; 0 without maps.
    flips : images of another class although their margin in float64 is above max |Δlogit|.
    """

    logits: float
    maps: float
    flips: int

    @property
    def holds(self) -> bool:
        """False also where a figure is not a number."""
        return self.logits <= TOLERANCE and self.maps <= TOLERANCE and not self.flips


@dataclass(frozen=True)
class Exported:
    """What was written. size : bytes."""

    path: Path
    size: int
    opset: int
    parity: Parity


def export_run(prefix: str, format: str = "onnx", out: Path | None = None, runs: Path | None = None) -> Exported:
    """Export the fold or pre-training run whose key begins with ``prefix``.

    out : file or existing folder; ``<run key>.onnx`` in the current folder when left out.
    Raises UsageError for an unknown format, a run that does not exist or has no network to deploy; DataError
    for weights that are missing or damaged; CheckFailed, with nothing written, when the file's graph is
    invalid or its results are not those of the network.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: it is {' or '.join(FORMATS)}")
    model = open_run(prefix, "", runs)
    path = _destination(out, model.record.key)
    from ferbench.training.prediction import OPSET

    content, measured = verified(model)
    write_bytes(path, content)
    return Exported(path, len(content), OPSET, measured)


def verified(model: StoredRun, images: int = COUNT) -> tuple[bytes, Parity]:
    """Return the network of a run as ONNX bytes, and how far they are from it on some images.

    Raises what :func:`export_run` does.
    """
    content = to_onnx(model.network, metadata_of(model.record, model.network, model.view))
    measured = parity(content, model.network, images)
    if not measured.holds:
        raise CheckFailed(
            f"the ONNX file of run {model.record.key} is not what the run computes (logits off by "
            f"{measured.logits:.1e}, maps by {measured.maps:.1e}, allowed {TOLERANCE:.0e}; {measured.flips} classes "
            "differ): nothing was written"
        )
    return content, measured


def metadata_of(record: Record, module: Deployable, view: View = IMAGES) -> dict[str, str]:
    """Metadata of the file: preprocessing, labels and origin; lists and tables are JSON texts."""
    identity = record.identity
    eyes_and_mouth = dict(zip(("image_left_eye", "image_right_eye", "mouth_centre"), TEMPLATE.tolist(), strict=True))
    preprocessing: dict[str, Any] = {
        "input": ["N", *module.shape],
        "dtype": "uint8",
        "colour": view.colour,
        "range": [0, 255],
        **({"template": eyes_and_mouth} if view.is_default else {"alignment": view.alignment}),
        "coordinates": "pixel centres, x to the right, y down",
        "normalisation": "inside the graph",
    }
    metadata = {
        "labels": json.dumps(record.classes),
        "preprocessing": json.dumps(preprocessing),
        "method": identity.method,
        "preset": identity.preset,
        "protocol": identity.protocol,
        "kind": identity.kind,
        "fold": identity.fold,
        "seed": str(identity.seed),
        "run_key": record.key,
        "data_fingerprint": identity.data,
        "ferbench_version": __version__,
    }
    if module.parts and len(module.outputs) > 1:
        metadata["maps"] = json.dumps(module.parts)
    return metadata


def to_onnx(module: Deployable, metadata: dict[str, str]) -> bytes:
    """Return a module as ONNX bytes with these metadata, in its form of fewest operations.

    Raises CheckFailed when ONNX's own checker refuses them.
    """
    import onnx

    from ferbench.training.prediction import onnx_graph

    model = onnx.load_from_string(onnx_graph(module))
    onnx.helper.set_model_props(model, metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CheckFailed(f"the exported graph is no valid ONNX ({error}): nothing was written") from None
    return model.SerializeToString(deterministic=True)


def session(model: Path | bytes, threads: int) -> onnxruntime.InferenceSession:
    """Open an ONNX file, or its bytes, in onnxruntime on the CPU with so many threads.

    Nodes run one after the other, all of onnxruntime's graph optimisations are on, and waiting threads spin.
    Raises DataError when it cannot be read.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as failures

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    name = "the ONNX model" if isinstance(model, bytes) else str(model)
    try:
        content = model if isinstance(model, bytes) else model.read_bytes()
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (OSError, failures.Fail, failures.InvalidArgument, failures.InvalidGraph, failures.InvalidProtobuf) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(f"{name} cannot be opened ({reason}): export it again with `ferbench export`") from None


def parity(content: bytes, module: Deployable, count: int = COUNT) -> Parity:
    """Compare ONNX bytes in onnxruntime with the module in float64 on the CPU, on ``count`` seeded images."""
    import torch

    images = _images(module.shape)[:count]
    with torch.inference_mode():
        exact = [part.numpy() for part in copy.deepcopy(module).cpu().double()(torch.from_numpy(images))]
    opened = session(content, torch.get_num_threads())
    batches = [run_graph(opened, images, size) for size in BATCHES]
    truth = exact[0]
    off = max(_difference(parts[0], truth) for parts in batches)
    largest = float(np.abs(truth).max())
    ranked = np.sort(truth, axis=1)
    decided = ranked[:, -1] - ranked[:, -2] > off
    flipped = [decided & (parts[0].argmax(axis=1) != truth.argmax(axis=1)) for parts in batches]
    return Parity(
        logits=off / max(largest, float(np.finfo(np.float32).tiny)),
        maps=max((_difference(parts[1], exact[1]) for parts in batches), default=0.0) if len(exact) > 1 else 0.0,
        flips=int(np.any(flipped, axis=0).sum()),
    )


def _images(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [COUNT,*shape] of every brightness and contrast; large shapes and fine grain, as a face has."""
    rng = generator(0, "export", "parity")
    channels, side, _ = shape
    block = -(-side // 8)
    shapes = np.kron(rng.normal(size=(COUNT, channels, 8, 8)), np.ones((1, 1, block, block)))[..., :side, :side]
    grain = 0.3 * rng.normal(size=(COUNT, *shape))
    brightness, contrast = rng.uniform(60, 195, (COUNT, 1, 1, 1)), rng.uniform(10, 80, (COUNT, 1, 1, 1))
    return np.clip(brightness + contrast * (shapes + grain), 0, 255).round().astype(np.uint8)


def run_graph(opened: onnxruntime.InferenceSession, images: np.ndarray, size: int) -> list[np.ndarray]:
    """All outputs of all images uint8 [N,C,S,S], in batches of ``size``."""
    parts = [opened.run(None, {"images": images[at : at + size]}) for at in range(0, len(images), size)]
    return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _difference(output: np.ndarray, exact: np.ndarray) -> float:
    """max |Δ|, infinite where something is not a number (max() would lose a NaN)."""
    difference = float(np.abs(output - exact).max())
    return difference if np.isfinite(difference) else float("inf")


def _destination(out: Path | None, key: str) -> Path:
    """The file to write; UsageError, before any work, where this is impossible."""
    path = Path(f"{key}.onnx") if out is None else out
    if path.is_dir():
        path = path / f"{key}.onnx"
    check_place(path, "--out")
    return path
