"""The way in which every command runs a network for prediction: fused, in batches that fit the cache, memory kept.

``evaluate``, ``predict``, ``contamination`` and ``bench`` use a :class:`PreparedNetwork`. The tests of folds call a
network fused in the same way with the attention maps that they have already.
"""

import sys
import warnings
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.errors import UsageError
from ferbench.training.arithmetic import ROWS
from ferbench.training.device import Device, keep_freed_memory
from ferbench.training.networks import Deployable

SIZE = 48  # pixels of an image's side
OPSET = 20  # the newest that the tracing exporter writes; onnxruntime reads it from 1.17 on

Run = Callable[[Tensor], tuple[Tensor, ...]]  # images uint8 [B,1,48,48] on the device → outputs there


class PreparedNetwork:
    """A network ready to predict: images uint8 [N,48,48] → its outputs, float32 [N,…] on the CPU, logits first.

    device : with the precision. In fp32 no prediction differs from that of the plain network; in bf16 weights and
        arithmetic have 8 significant bits, which changes some. engine : "torch", or "openvino" on a CPU (extra of the
        same name). rows : images in a batch, by default those of :data:`ROWS`.
    Raises UsageError for what is not installed or not in this processor.
    """

    def __init__(self, module: Deployable, device: Device, engine: str = "torch", rows: int = 0):
        self.device, self.rows = device, rows or ROWS[device.name]
        self._run: Run
        if engine == "openvino":
            self._run = _openvino(module, device)
        elif device.name == "cuda":
            self._run = Graph(device.place(module.for_inference(device)), self.rows)
        else:
            keep_freed_memory()
            self._run = _torch(device.place(module.for_inference(device)), device)

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        parts = [self.batch(part.to(self.device.name).unsqueeze(1)) for part in images.split(self.rows)]
        return tuple(torch.cat([part.float().cpu() for part in output]) for output in zip(*parts, strict=True))

    def batch(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs for one batch: images uint8 [B,1,48,48] with B ≤ ``rows``, on the device as the outputs are."""
        with torch.inference_mode():
            return self._run(images)


def onnx_graph(module: Deployable) -> bytes:
    """Trace a module in its form of fewest operations as an ONNX file without metadata: images uint8 [N,*shape] →
    the module's outputs by their names, N free."""
    written, names = BytesIO(), ["images", *module.outputs]
    # The tracing exporter suffices, as the network has no branch that depends on data. The one that torch recommends
    # takes 24 s instead of 1.5 s for a graph that onnxruntime runs no faster.
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module.for_inference(Device()),
            (torch.zeros(2, *module.shape, dtype=torch.uint8),),
            written,  # type: ignore[arg-type]  # it writes to files as well
            dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in names},
            opset_version=OPSET,
            input_names=names[:1],
            output_names=names[1:],
            verbose=False,
        )
    return written.getvalue()


def _torch(network: nn.Module, device: Device) -> Run:
    return lambda images: outputs(network(device.images(images)))


def outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a network returns, as a tuple in any case."""
    return (result,) if isinstance(result, Tensor) else result


def openvino_core(precision: str) -> Any:
    """OpenVINO's ``Core``. Raises UsageError where it is not installed, or computes in another precision here."""
    # Its Python package loads a client that reports usage over the network, unless this module is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UsageError("openvino is not installed: pip install 'ferbench[openvino]'") from None
    core = openvino.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # OpenVINO would compute in fp32 without a word.
        raise UsageError("OpenVINO has no bf16 on this processor: take --precision fp32")
    return core


def _openvino(module: Deployable, device: Device) -> Run:
    """The network in OpenVINO, compiled for each batch size: a dynamic size costs a third of the speed."""
    if device.name != "cpu":
        raise UsageError("the engine openvino runs on a CPU: take --device cpu")
    core = openvino_core(device.precision)
    kind = {"fp32": "f32"}.get(device.precision, device.precision)
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": kind,
    }
    content = onnx_graph(module)

    @cache
    def request(size: int) -> Any:
        model = core.read_model(content)
        model.reshape([size, *model.inputs[0].partial_shape[1:]])
        return core.compile_model(model, "CPU", settings).create_infer_request()

    def run(images: Tensor) -> tuple[Tensor, ...]:
        results = request(len(images)).infer([images.numpy()])
        return tuple(torch.from_numpy(results[name].copy()) for name in module.outputs)

    return run


class Graph:
    """A forward pass replayed from one CUDA graph for at most ``rows`` images, captured at the first call: compiling
    and choosing kernels is part of the cold start."""

    def __init__(self, network: nn.Module, rows: int):
        self.network = network
        self.images = torch.zeros(rows, 1, SIZE, SIZE, dtype=torch.uint8, device="cuda")
        self.graph: torch.cuda.CUDAGraph | None = None

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.network(self.images)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = outputs(self.network(self.images))

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        self.images[: len(images)].copy_(images)
        if self.graph is None:
            self._capture()
        assert self.graph is not None
        self.graph.replay()
        return tuple(output[: len(images)].clone() for output in self.outputs)
