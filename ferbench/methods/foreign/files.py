"""External models in files, on the CPU: ONNX by onnxruntime, Keras by Keras 3 on torch without TensorFlow.

Keras 3 reads files of Keras 2, except sequential models without an input layer, which early versions wrote: it takes
the shape of a batch for that of one image, and rejects the oldest form of the list of layers. Such a file is read from
a copy with a corrected description; the weights are not changed.
"""

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ferbench.errors import DataError, UsageError
from ferbench.files import read_bytes
from ferbench.schema import parse_json
from ferbench.text import printable

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MAX_ONNX_BYTES = 2 << 30  # the limit of the format for one file
_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({kind})": kind for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")},
}


def read_onnx(path: Path) -> "tuple[onnx.ModelProto, bytes]":
    """Return the graph in a file, and its bytes. Raises DataError for a file that is no ONNX graph, and for one with
    weights in other files, because their paths may lead anywhere."""
    import onnx

    try:
        content = read_bytes(path, MAX_ONNX_BYTES)
        model = onnx.load_model_from_string(content)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except DataError:
        raise
    except Exception as error:  # protobuf's errors have no common base
        raise DataError(f"{path} cannot be read as ONNX: {printable(str(error))[:200]}") from None
    if any(
        tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _onnx_tensors(model)
    ):
        raise DataError(
            f"{path} keeps weights in other files: store it as one file with onnx.save(onnx.load(...), ...)"
        )
    return model, content


def onnx_session(path: Path) -> "onnxruntime.InferenceSession":
    """Open a file that :func:`read_onnx` accepts. Raises DataError for a graph that onnxruntime cannot run."""
    import onnxruntime

    _, content = read_onnx(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its log quotes untrusted names of the file, and errors are raised in any case
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's errors have no common base
        raise DataError(f"{path} cannot be opened by onnxruntime: {printable(str(error))[:200]}") from None


class OnnxNetwork:
    """An ONNX model as a function from faces to its outputs by name.

    shape : of a batch of faces, as the file declares it. kind : dtype of the input. metadata : texts of the file.
    """

    def __init__(self, path: Path):
        self._opened = onnx_session(path)
        inputs = self._opened.get_inputs()
        if len(inputs) != 1:
            raise DataError(f"{path} takes {len(inputs)} inputs, and a model of faces takes one")
        self._input = inputs[0]
        if self._input.type not in _ONNX_TYPES:
            raise DataError(f"{path} takes {self._input.type}, which is no image")
        self.kind = np.dtype(_ONNX_TYPES[self._input.type])
        self.shape: Sequence[Any] = self._input.shape
        self.metadata: dict[str, str] = dict(self._opened.get_modelmeta().custom_metadata_map)

    def __call__(self, faces: np.ndarray) -> dict[str, Any]:
        names = [output.name for output in self._opened.get_outputs()]
        try:
            outputs = self._opened.run(None, {self._input.name: faces.astype(self.kind)})
        except Exception as error:  # onnxruntime's errors have no common base
            reason = printable(str(error))[:200]
            raise DataError(f"the ONNX model cannot be run on faces {list(faces.shape)}: {reason}") from None
        return dict(zip(names, outputs, strict=True))


def _onnx_tensors(message: Any) -> "Iterator[onnx.TensorProto]":
    """All tensors of a graph, including those in attributes, nested graphs and functions."""
    import onnx

    waiting = [message]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.TensorProto):
            yield part
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting += value if hasattr(value, "__len__") else [value]


HDF5 = (".h5", ".hdf5")


class KerasNetwork:
    """A Keras model as a function from faces to its outputs by name.

    It has no ``fit``, unlike a Keras model, because a finished network is tested without training. shape : of a batch
    of faces, with None for any length; None for a model with several inputs. kind : dtype of the input.
    """

    kind = np.dtype("float32")
    metadata: ClassVar[dict[str, str]] = {}

    def __init__(self, path: Path):
        self._keras = _keras()
        try:
            with self._keras.device("cpu"), tempfile.TemporaryDirectory() as folder:
                readable = _readable(path, Path(folder)) if path.suffix in HDF5 else path
                # No code of the file may run, and its optimizer and loss are not needed.
                self._model = self._keras.saving.load_model(readable, compile=False, safe_mode=True)
        except Exception as error:  # HDF5, zip, JSON and Keras have no common base of their errors
            reason = printable(str(error))[:200]
            raise DataError(f"{path} cannot be opened by Keras: {reason}") from None
        shape = self._model.input_shape
        self.shape: tuple[int | None, ...] | None = shape if isinstance(shape, tuple) else None

    def __call__(self, faces: np.ndarray) -> dict[str, Any]:
        import torch

        with self._keras.device("cpu"), torch.inference_mode(), warnings.catch_warnings():
            # A file may declare its single input as a list; Keras accepts the batch nevertheless.
            warnings.filterwarnings("ignore", "The structure of `inputs`")
            try:
                outputs = self._model(faces, training=False)
                if not isinstance(outputs, dict):
                    outputs = dict(enumerate(outputs if isinstance(outputs, list | tuple) else [outputs]))
                return {str(name): output.cpu().numpy() for name, output in outputs.items()}
            except Exception as error:  # of any layer, or of outputs that are no tensors
                reason = printable(str(error))[:200]
                raise DataError(f"the Keras model cannot be run on faces {list(faces.shape)}: {reason}") from None


def _keras() -> Any:
    """Import Keras on torch. Raises UsageError if it is missing or already runs on another backend."""
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import h5py  # noqa: F401
        import keras
    except ImportError as error:
        raise UsageError(f"a Keras model needs Keras 3 and h5py ({error}): pip install 'ferbench[keras]'") from None
    if not hasattr(keras, "device") or keras.config.backend() != "torch":
        raise UsageError(
            "a Keras model needs Keras 3 on torch, and another Keras is loaded: pip install 'ferbench[keras]'"
        )
    return keras


def _readable(path: Path, folder: Path) -> Path:
    """Return an HDF5 file that Keras 3 can read: ``path``, or a copy in ``folder`` with an input layer."""
    import h5py

    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
    if config is None:
        return path  # weights without a network, which Keras rejects with its own message
    description = parse_json(config, path)
    if description.get("class_name") != "Sequential":
        return path
    content = description["config"]
    network = content if isinstance(content, dict) else {"layers": content}
    first = network["layers"][0]
    if first["class_name"] == "InputLayer" or "batch_input_shape" not in first["config"]:
        return path
    entry = {"name": "faces", "batch_input_shape": first["config"].pop("batch_input_shape"), "dtype": "float32"}
    layers = [{"class_name": "InputLayer", "config": entry}, *network["layers"]]
    description["config"] = {"name": "sequential", **network, "layers": layers}
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = json.dumps(description)
    return copy
