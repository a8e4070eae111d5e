"""ONNX files of anybody: read as one file that says all of itself, and run by onnxruntime on the CPU."""

from collections.abc import Iterator
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


def read(path: Path) -> "onnx.ModelProto":
    """Return the graph in a file. Raises DataError for what is none, and for one whose weights lie in other files:
    their paths may lead anywhere."""
    import onnx

    try:
        model = onnx.load_model_from_string(read_bytes(path, MOST))
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
    return model


def session(path: Path) -> "onnxruntime.InferenceSession":
    """Open a file that :func:`read` takes. Raises DataError for a graph that onnxruntime cannot run."""
    import onnxruntime

    read(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print quotes names of the file, and errors are raised anyway
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own errors share no base
        raise DataError(f"{path} cannot be opened by onnxruntime: {printable(str(error))[:200]}") from None


def scores(opened: "onnxruntime.InferenceSession", faces: np.ndarray, title: str) -> np.ndarray:
    """What a model gives for faces, in the type that it takes. Raises DataError where it cannot run on them."""
    (entry, *_) = opened.get_inputs()
    kind = {"tensor(uint8)": np.uint8, "tensor(double)": np.float64}.get(entry.type, np.float32)
    try:
        return np.asarray(opened.run(None, {entry.name: faces.astype(kind)})[0], dtype=np.float64)
    except Exception as error:  # onnxruntime's own, or what numpy says of outputs that are no array
        raise DataError(f"{title} cannot be run on faces {list(faces.shape)}: {printable(str(error))[:200]}") from None


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
