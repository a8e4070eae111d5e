"""Which network learns by which loss."""

from ferbench.methods.cnn.centers import CenterNetwork, IslandNetwork
from ferbench.methods.cnn.identity import IdentityNetwork
from ferbench.methods.cnn.locality import LocalityNetwork
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.tuplet import TupletNetwork
from ferbench.methods.interface import PRETRAIN

NETWORKS: dict[str, type[Network]] = {  # by the recipe's loss.kind
    "softmax": Network, "center": CenterNetwork, "island": IslandNetwork, "locality": LocalityNetwork,
    "identity": IdentityNetwork, "tuplet": TupletNetwork,
}  # fmt: skip


def build(recipe: Recipe, kind: str, classes: int) -> Network:
    """Build the untrained network of a training of this kind: a pre-training knows the trunk alone, no loss."""
    if kind == PRETRAIN:
        return Network(recipe.network, None, classes)
    return NETWORKS[recipe.loss.kind](recipe.network, recipe.loss, classes)
