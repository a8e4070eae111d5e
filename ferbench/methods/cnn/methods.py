"""Which network learns by which loss."""

from ferbench.methods.cnn.centers import CenterNetwork, IslandNetwork
from ferbench.methods.cnn.identity import IdentityNetwork
from ferbench.methods.cnn.locality import LocalityNetwork
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Loss, Recipe, Shape
from ferbench.methods.cnn.regression import TaughtNetwork
from ferbench.methods.cnn.schedule import asked_shape
from ferbench.methods.cnn.tree import TreeNetwork
from ferbench.methods.cnn.tuplet import TupletNetwork
from ferbench.methods.interface import PRETRAIN

NETWORKS: dict[str, type[Network]] = {  # by the recipe's loss.kind
    "softmax": Network,
    "center": CenterNetwork,
    "island": IslandNetwork,
    "locality": LocalityNetwork,
    "identity": IdentityNetwork,
    "tuplet": TupletNetwork,
    "regression": TaughtNetwork,
    "tree": TreeNetwork,
}


def network_of(shape: Shape, loss: Loss | None, classes: int) -> Network:
    """Build an untrained network: without a loss of a method's, one that learns by softmax alone."""
    return Network(shape, None, classes) if loss is None else NETWORKS[loss.kind](shape, loss, classes)


def build(recipe: Recipe, kind: str, classes: int) -> Network:
    """Build the untrained network of a training of this kind: a pre-training knows the trunk alone, no loss, unless a
    loss takes part in it; what learns attributes has an output for each."""
    if kind == recipe.asks:
        return network_of(asked_shape(recipe), None, classes)
    return network_of(recipe.network, recipe.pretrains if kind == PRETRAIN else recipe.loss, classes)
