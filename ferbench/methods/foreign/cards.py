"""A card to start from, for a model that has none."""

import json
from pathlib import Path

from ferbench.errors import DataError, UsageError

_HEAD = """# What ferbench has to know of a model from elsewhere. A # before a field: that is its default.
family = "foreign"
name = "{name}"
title = "{name}"

[model]
source = "{source}"
kind = "{kind}"                   # onnx, callable (images to scores) or estimator (fit and predict_proba)

[input]
size = {size}
layout = "{layout}"               # nchw, nhwc, nhw, or flat: one row a face
colour = "{colour}"               # grey, rgb, bgr
scale = "0..1"                    # 0..255, 0..1, -1..1
# mean = [0.0]                    # taken off, and
# deviation = [1.0]               # divided by, one for each channel

[output]
labels = {labels}
gives = "{gives}"                 # probabilities, logits, or scores that are neither

[trained]
on = []                           # what its authors say that it learned from, such as ["fer2013"]

[preset.own]
"""


def card_beside(model: str) -> Path:
    """Return the card of a model: itself where it is one, else a TOML file of the same name beside it.

    model : a path ending in .toml or .onnx, or ``package.module:name``.
    Raises UsageError where there is none, naming the command that writes one to start from.
    """
    if model.endswith(".toml"):
        return Path(model)
    _, colon, name = model.partition(":")
    path = Path(f"{name}.toml") if colon else Path(model).with_suffix(".toml")
    if not path.is_file():
        raise UsageError(f"{model} has no card {path}: `ferbench card {model} > {path}` writes one to start from")
    return path


def template(model: str) -> str:
    """Return a card for an ONNX file or ``package.module:name``, with what can be read from the file filled in.

    Raises DataError for a file that is no ONNX model.
    """
    if ":" in model:
        name = model.partition(":")[2]
        return _HEAD.format(name=name, source=model, kind="estimator", size=48, layout="flat", colour="grey",
                            labels="[]                       # an estimator that is fitted here needs none",
                            gives="probabilities")  # fmt: skip
    path = Path(model)
    import onnx

    try:
        loaded = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own errors share no base
        raise DataError(f"{model} cannot be read as ONNX: {' '.join(str(error).split())[:200]}") from None
    sides = [one.dim_value for one in loaded.graph.input[0].type.tensor_type.shape.dim]
    last = len(sides) == 4 and sides[3] in (1, 3)
    channels = sides[3] if last else sides[1] if len(sides) == 4 else 1
    told = {one.key: one.value for one in loaded.metadata_props}
    labels = told.get("labels") or '["anger", "disgust"]     # each score\'s emotion, in the model\'s order'
    if told.get("labels"):
        labels = json.dumps(json.loads(labels))
    return _HEAD.format(
        name=path.stem, source=path.name, kind="onnx", size=sides[2] if len(sides) > 2 and sides[2] else 48,
        layout="nhwc" if last else "nchw", colour="rgb" if channels == 3 else "grey", labels=labels,
        gives="logits" if told.get("labels") else "probabilities",
    ).replace('scale = "0..1"', 'scale = "0..255"' if told.get("preprocessing") else 'scale = "0..1"')  # fmt: skip
