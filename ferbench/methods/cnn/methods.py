"""Which network learns by which loss."""

from ferbench.methods.cnn.centers import CenterNetwork, IslandNetwork
from ferbench.methods.cnn.identity import IdentityNetwork
from ferbench.methods.cnn.locality import LocalityNetwork
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Loss, Recipe, Shape
from ferbench.methods.cnn.tuplet import TupletNetwork
from ferbench.methods.interface import PRETRAIN

NETWORKS: dict[str, type[Network]] = {  # by the recipe's loss.kind
    "softmax": Network, "center": CenterNetwork, "island": IslandNetwork, "locality": LocalityNetwork,
    "identity": IdentityNetwork, "tuplet": TupletNetwork,
}  # fmt: skip


def network_of(shape: Shape, loss: Loss | None, classes: int) -> Network:
    """Build an untrained network: without a loss of a method's, one that learns by softmax alone."""
    return Network(shape, None, classes) if loss is None else NETWORKS[loss.kind](shape, loss, classes)


def build(recipe: Recipe, kind: str, classes: int) -> Network:
    """Build the untrained network of a training of this kind: a pre-training knows the trunk alone, no loss."""
    return network_of(recipe.network, None if kind == PRETRAIN else recipe.loss, classes)
