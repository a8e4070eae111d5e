"""Which network learns by which loss."""

from ferbench.methods.cnn.centers import CenterNetwork
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.interface import PRETRAIN

NETWORKS: dict[str, type[Network]] = {"softmax": Network, "center": CenterNetwork}  # by the recipe's loss.kind


def build(recipe: Recipe, kind: str, classes: int) -> Network:
    """Build the untrained network of a training of this kind: a pre-training knows the trunk alone, no loss."""
    if kind == PRETRAIN:
        return Network(recipe.network, None, classes)
    return NETWORKS[recipe.loss.kind](recipe.network, recipe.loss, classes)
