"""Small convolutional networks that train in a second."""

from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import Method, resolve
from support.recognisers import CLASSES, training_set

SHAPES = {
    "small-cnn": ("network.widths=[4,6,8]", "network.hidden=16", "network.feature=12"),
    "base-dcnn": ("network.widths=[4,4,6,6,8,8]", "network.feature=12"),
    "resnet18": ("network.widths=[4,4,4,8]",),
}


def little(name: str, *changes: str) -> Method:
    """The method at its tiny preset with a network that trains in a second."""
    trunk = resolve(name, "tiny", "synth").recipe.network.trunk
    return resolve(name, "tiny", "synth", (*SHAPES[trunk], *changes))


def fitted(method: Method, work, samples=None):
    recogniser = method.family.recogniser(method, FOLD, CLASSES)
    recogniser.fit(samples or training_set(), work)
    return recogniser
