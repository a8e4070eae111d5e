"""External models and their cards, and the documentation's example of a user's method."""

import re
from pathlib import Path

import numpy as np
from conftest import ROOT

LABELS = '["Angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]'


CARD = """
family = "foreign"
name = "{name}"
title = "{name}"
[model]
source = "{source}"
kind = "{kind}"
[input]
layout = "{layout}"
[output]
labels = {labels}
gives = "{gives}"
[trained]
on = {on}
[preset.own]
"""


def card(place, name, **fields):
    told = {
        "name": name,
        "kind": "callable",
        "layout": "nchw",
        "labels": LABELS,
        "gives": "logits",
        "on": '["fer2013"]',
    }
    path = place / f"{name}.toml"
    path.write_text(CARD.format(**{**told, **fields}))
    return path


def onnx_file(path, size=48):
    """A model of one matrix product: logits are the sums of seven rows of pixels."""
    weights = np.zeros((size * size, 7), dtype=np.float32)
    for label in range(7):
        weights[label * size : (label + 1) * size, label] = 0.1
    save_product(path, weights, (1, size, size))
    return weights


def save_product(path, weights: np.ndarray, shape: tuple[int, int, int], pool: int = 1) -> None:
    """Save a model of one matrix product as ONNX. weights : float32 [pixels,K] for images of ``shape`` [C,S,S], or for
    the means of their squares of ``pool`` pixels."""
    import onnx
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Flatten", ["faces"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["scores"])]
    if pool > 1:
        means = helper.make_node("AveragePool", ["faces"], ["means"], kernel_shape=[pool] * 2, strides=[pool] * 2)
        nodes = [means, helper.make_node("Flatten", ["means"], ["flat"]), nodes[1]]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", weights.shape[1]])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.flatten())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def example(folder: Path) -> Path:
    """Lay down the documentation's example of an own method: a file and a TOML. Returns the TOML's path."""
    page = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    for name in ("nearest.py", "nearest-mean.toml"):
        found = re.search(rf"`{re.escape(name)}`:\s+```\w+\n(.*?)```", page, re.DOTALL)
        assert found, f"docs/extending.md shows no {name}"
        (folder / name).write_text(found[1])
    return folder / "nearest-mean.toml"
