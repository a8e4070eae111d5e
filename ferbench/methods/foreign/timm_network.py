"""timm networks in the folders that timm and the Hugging Face hub exchange: config.json and model.safetensors."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, PositiveInt

from ferbench.errors import DataError, UsageError
from ferbench.methods.foreign import CONFIG
from ferbench.schema import Schema, read_json, validated
from ferbench.text import printable

WEIGHTS = "model.safetensors"
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
        timm = _timm()
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


def _timm() -> Any:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision's, if it does not belong to the installed torch
        raise UsageError(
            f"timm cannot be imported ({printable(str(error))[:100]}): pip install 'ferbench[timm]'"
        ) from None
    return timm
