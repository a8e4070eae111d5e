"""External models in files, on the CPU: ONNX by onnxruntime, Keras by Keras 3 on torch without TensorFlow, and networks
of timm in the folders that timm and the Hugging Face hub exchange (config.json and model.safetensors).

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
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field, PositiveInt

from ferbench.errors import DataError, UsageError
from ferbench.files import read_bytes
from ferbench.methods.foreign import CONFIG
from ferbench.methods.modules import timm_library
from ferbench.schema import Schema, parse_json, read_json, validated
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


TIMM_WEIGHTS = "model.safetensors"
# Arguments of timm.create_model that would read other files, or load them from the network.
_FORBIDDEN = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"}

Side = Annotated[int, Field(gt=0, le=1024)]


class _Open(Schema):
    """A part of a config.json: fields that are not listed here do not change predictions."""

    model_config = ConfigDict(extra="ignore")


class Preprocessing(_Open):
    """The input of a network: timm's ``pretrained_cfg``. input_size : channels, height, width."""

    input_size: tuple[Literal[1, 3], Side, Side]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"


class Config(_Open):
    """A config.json as ``timm.models.save_for_hf`` writes it.

    label_names : of the scores, in their order. id2label : the same as the Hugging Face hub writes it.
    """

    architecture: str
    num_classes: PositiveInt
    pretrained_cfg: Preprocessing
    label_names: tuple[str, ...] | dict[int, str] = ()
    id2label: dict[int, str] = Field(default_factory=dict)
    model_args: dict[str, Any] = Field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The name of each score; empty if the file has none. Raises DataError for two different lists."""
        lists = [
            [names.get(k, "") for k in range(self.num_classes)] if isinstance(names, dict) else list(names)
            for names in (self.label_names, self.id2label)
            if names
        ]
        if any(names != lists[0] for names in lists):
            raise DataError(f"{CONFIG} has two orders of labels: {' and '.join(map(str, lists))}")
        return lists[0] if lists else []


def read_config(folder: Path) -> Config:
    """Read the config.json of a timm network. Raises DataError for a folder without one, and for another library's."""
    content = read_json(folder / CONFIG)
    if isinstance(content, dict) and "architectures" in content and "architecture" not in content:
        raise DataError(
            f"{folder / CONFIG} is of a network of the transformers library, which ferbench does not open: export it "
            "as ONNX, as with `optimum-cli export onnx`"
        )
    config = validated(Config, content, folder / CONFIG)
    if config.pretrained_cfg.crop_mode != "center" or config.pretrained_cfg.interpolation not in (
        "bilinear",
        "bicubic",
    ):
        raise DataError(
            f"{folder / CONFIG} resizes by {config.pretrained_cfg.interpolation} and crops by "
            f"{config.pretrained_cfg.crop_mode}: ferbench resizes by bilinear or bicubic, and crops the center"
        )
    return config


class TimmNetwork:
    """A timm network as a function from faces float32 [N,C,S,S] to its logits by name.

    shape : of a batch of faces. metadata : the labels. Raises UsageError without timm, DataError for a folder that is
    no network of timm.
    """

    kind = np.dtype("float32")

    def __init__(self, path: Path):
        config = read_config(path.parent)
        self.shape: tuple[int | None, ...] = (None, *config.pretrained_cfg.input_size)
        self.metadata = {"labels": json.dumps(config.labels)} if config.labels else {}
        timm = timm_library()
        if not timm.is_model(config.architecture):
            raise DataError(f"{path.parent / CONFIG} names {config.architecture!r}, which is no network of timm")
        if forbidden := sorted(_FORBIDDEN & set(config.model_args)):
            raise DataError(f"{path.parent / CONFIG} sets {', '.join(forbidden)}, which would load other files")
        channels = config.pretrained_cfg.input_size[0]
        arguments = {"in_chans": channels, **config.model_args, "num_classes": config.num_classes}
        from safetensors.torch import load_file

        try:
            self._network = timm.create_model(config.architecture, pretrained=False, **arguments)
            self._network.load_state_dict(load_file(path))
        except Exception as error:  # of timm, torch and safetensors, without a common base
            raise DataError(f"{path} does not hold the network of {CONFIG}: {printable(str(error))[:200]}") from None
        self._network.eval()

    def __call__(self, faces: np.ndarray) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            return {"logits": self._network(torch.from_numpy(faces)).numpy()}
