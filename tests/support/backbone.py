"""Networks of timm that train in a second."""

from pathlib import Path

from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import Method, resolve
from support.recognisers import CLASSES, training_set

SMALL = ("network.model=test_resnet", "input.size=32", "finetune.batch=8", "finetune.warmup=0", "finetune.ema=0.0")
LOSSES = {
    "softmax": ("timm-resnet18", ()),
    "mixup": ("timm-resnet18", ("loss.smoothing=0.1", "loss.mixup=0.4")),
    "center": ("timm-resnet18", ("loss.kind=center", "loss.weight=0.01", "loss.alpha=0.5")),
    "island": ("timm-resnet18", ("loss.kind=island", "loss.weight=0.01", "loss.alpha=0.5", "loss.push=0.1")),
    "locality": ("timm-resnet18", ("loss.kind=locality", "loss.weight=0.01", "loss.neighbours=2")),
    "scn": ("scn", ("loss.relabel_epoch=2",)),
    "rul": ("rul", ()),
    "eac": ("eac", ()),
    "dan": ("dan", ()),
    "ada-df": ("ada-df", ()),
}


def little(loss: str, *changes: str, folder: Path | None = None) -> Method:
    """The method of a loss at its tiny preset, with a smaller network and images of 32 pixels."""
    name, own = LOSSES[loss]
    return resolve(name, "tiny", "synth", (*SMALL, *own, *changes)).model_copy(update={"folder": folder})


def fitted(method: Method, work, samples=None):
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    recogniser.fit(samples or training_set(), work)
    return recogniser
