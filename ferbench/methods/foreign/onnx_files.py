"""ONNX files of anybody: read as one file that says all of itself, and run by onnxruntime on the CPU."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.errors import DataError
from ferbench.files import read_bytes
from ferbench.text import printable

if TYPE_CHECKING:
    import onnx
    import onnxruntime

MOST = 2 << 30  # bytes: what one such file may have by its own format
_KINDS = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    **{f"tensor({kind})": kind for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")},
}


def read(path: Path) -> "tuple[onnx.ModelProto, bytes]":
    """Return the graph in a file, and its bytes. Raises DataError for what is none, and for one whose weights lie in
    other files: their paths may lead anywhere."""
    import onnx

    try:
        content = read_bytes(path, MOST)
        model = onnx.load_model_from_string(content)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except DataError:
        raise
    except Exception as error:  # protobuf's own errors share no base
        raise DataError(f"{path} cannot be read as ONNX: {printable(str(error))[:200]}") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise DataError(
            f"{path} keeps weights in other files: store it as one file with onnx.save(onnx.load(...), ...)"
        )
    return model, content


def session(path: Path) -> "onnxruntime.InferenceSession":
    """Open a file that :func:`read` takes. Raises DataError for a graph that onnxruntime cannot run."""
    import onnxruntime

    _, content = read(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print quotes names of the file, and errors are raised anyway
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime's own errors share no base
        raise DataError(f"{path} cannot be opened by onnxruntime: {printable(str(error))[:200]}") from None


class Network:
    """An ONNX model as a function from faces to its outputs by name.

    shape : of a batch of faces, as the file says it. kind : type of its numbers. metadata : texts of the file by name.
    """

    def __init__(self, path: Path):
        self._opened = session(path)
        inputs = self._opened.get_inputs()
        if len(inputs) != 1:
            raise DataError(f"{path} takes {len(inputs)} inputs, and a model of faces takes one")
        self._input = inputs[0]
        if self._input.type not in _KINDS:
            raise DataError(f"{path} takes {self._input.type}, which is no image")
        self.kind = np.dtype(_KINDS[self._input.type])
        self.shape: Sequence[Any] = self._input.shape
        self.metadata: dict[str, str] = dict(self._opened.get_modelmeta().custom_metadata_map)

    def __call__(self, faces: np.ndarray) -> dict[str, Any]:
        names = [one.name for one in self._opened.get_outputs()]
        try:
            given = self._opened.run(None, {self._input.name: faces.astype(self.kind)})
        except Exception as error:  # onnxruntime's own errors share no base
            reason = printable(str(error))[:200]
            raise DataError(f"the ONNX model cannot be run on faces {list(faces.shape)}: {reason}") from None
        return dict(zip(names, given, strict=True))


def _tensors(message: Any) -> "Iterator[onnx.TensorProto]":
    """Every tensor of a graph, wherever it is: initialisers, attributes, graphs within graphs, functions."""
    import onnx

    waiting = [message]
    while waiting:
        one = waiting.pop()
        if isinstance(one, onnx.TensorProto):
            yield one
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting += value if hasattr(value, "__len__") else [value]
