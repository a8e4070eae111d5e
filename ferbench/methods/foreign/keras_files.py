"""Keras files, opened by the Keras 3 library on torch, which ferbench has anyway. No TensorFlow.

Files of Keras 2 are read by Keras 3 itself, but for models of layers in a row that were written before Keras began to
write an input layer in front of them. Keras 3 gives the first layer the shape of a whole batch where that of one image
belongs, and refuses the list of layers that the oldest of them have; so a copy gets its description in the later form.
Weights are never touched.
"""

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ferbench.errors import DataError, UsageError
from ferbench.schema import parse_json
from ferbench.text import printable

HDF5 = (".h5", ".hdf5")


class Network:
    """A Keras model as a function from faces to its outputs by name, on the CPU as all external models.

    It has no ``fit``, unlike a Keras model: a finished network is tested as it is. shape : of a batch of faces, None
    where it is open; None as a whole where the model takes several inputs. kind : type of the numbers that it is given.
    """

    kind = np.dtype("float32")
    metadata: ClassVar[dict[str, str]] = {}

    def __init__(self, path: Path):
        self._keras = _library()
        try:
            with self._keras.device("cpu"), tempfile.TemporaryDirectory() as folder:
                readable = _modernised(path, Path(folder)) if path.suffix in HDF5 else path
                # Nothing that a file brings along may run, and what it was trained with is not needed.
                self._model = self._keras.saving.load_model(readable, compile=False, safe_mode=True)
        except Exception as error:  # HDF5, zip, JSON and Keras raise all kinds
            reason = printable(str(error))[:200]
            raise DataError(f"{path} cannot be opened by Keras: {reason}") from None
        shape = self._model.input_shape
        self.shape: tuple[int | None, ...] | None = shape if isinstance(shape, tuple) else None

    def __call__(self, faces: np.ndarray) -> dict[str, Any]:
        import torch

        with self._keras.device("cpu"), torch.inference_mode(), warnings.catch_warnings():
            # Of a file that holds its single input as a list of one; Keras takes the batch all the same.
            warnings.filterwarnings("ignore", "The structure of `inputs`")
            try:
                given = self._model(faces, training=False)
                named = given if isinstance(given, dict) else dict(enumerate(_list(given)))
                return {str(name): one.cpu().numpy() for name, one in named.items()}
            except Exception as error:  # of whatever layer, or of outputs that are no tensor
                reason = printable(str(error))[:200]
                raise DataError(f"the Keras model cannot be run on faces {list(faces.shape)}: {reason}") from None


def _list(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def _library() -> Any:
    """Import Keras on torch. Raises UsageError where it is missing or already runs on something else."""
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


def _modernised(path: Path, folder: Path) -> Path:
    """Return an HDF5 file that Keras 3 can read: the given one, or a copy in ``folder`` with an input layer."""
    import h5py

    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
    if config is None:
        return path  # weights alone: Keras says so itself
    whole = parse_json(config, path)
    if whole.get("class_name") != "Sequential":
        return path
    inside = whole["config"] if isinstance(whole["config"], dict) else {"layers": whole["config"]}
    first = inside["layers"][0]
    if first["class_name"] == "InputLayer" or "batch_input_shape" not in first["config"]:
        return path
    entry = {"name": "faces", "batch_input_shape": first["config"].pop("batch_input_shape"), "dtype": "float32"}
    whole["config"] = {
        "name": "sequential",
        **inside,
        "layers": [{"class_name": "InputLayer", "config": entry}, *inside["layers"]],
    }
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["model_config"] = json.dumps(whole)
    return copy
