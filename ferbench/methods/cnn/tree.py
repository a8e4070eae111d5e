"""PAT-ResNet: a tree of attributes whose leaves have features and classifiers of their own."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ferbench.methods.cnn.asking import asked, outputs_of
from ferbench.methods.cnn.network import Network, Outputs, Truth
from ferbench.methods.cnn.recipe import GENDER, Loss, NetworkStage, Shape, TreeLoss
from ferbench.methods.interface import TrainingSet, Workspace
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch
from ferbench.training.samples import Samples

BRANCHES = 2  # of each node: two genders, then two clusters of faces of each
LEAVES = BRANCHES**2
NODES = 1 + BRANCHES  # the root, which tells genders, and one for each gender, which tells clusters


def leaf_weights(root: Tensor, inner: Tensor) -> Tensor:
    """log P(leaf|x) = Σ log p(a|x) along the path to the leaf.

    root : log p(gender|x) [B,2]. inner : log p(cluster|gender,x) [B,2,2]. Returns [B,4], leaf 2 · gender + cluster.
    """
    return (root[:, :, None] + inner).flatten(1)


def mixed(weights: Tensor, logits: Tensor) -> Tensor:
    """log p(y|x) = log Σ_leaf P(leaf|x) softmax(logits of the leaf)_y.

    weights : log P(leaf|x) [B,4]. logits : [B,4,K]. Returns [B,K].
    """
    return torch.logsumexp(weights[:, :, None] + logits.log_softmax(dim=2), dim=1)


def tree_loss(weights: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_leaf P(leaf|x) · CE_leaf, the mean over the batch, shapes as in :func:`mixed`."""
    chosen = logits.log_softmax(dim=2).gather(2, labels[:, None, None].expand(-1, LEAVES, 1)).squeeze(2)
    return -(weights.exp() * chosen).sum(dim=1).mean()


def soft_center_loss(features: Tensor, shares: Tensor, centers: Tensor) -> Tensor:
    """½ Σ_n Σ_a p(a|x) ‖f_n − c_{n,a}‖², the mean over the batch; p and c are constants (our reading of the PAT loss).

    features : [B,N,D], of N nodes. shares : [B,N,A], p(a|x) at each node. centers : [N,A,D].
    """
    apart = (features[:, :, None] - centers.detach()).square().sum(dim=3)
    return (shares.detach() * apart).sum(dim=(1, 2)).mean() / 2


def soft_center_step(features: Tensor, shares: Tensor, centers: Tensor) -> Tensor:
    """Δc_{n,a} = Σ_i p(a|x_i)(c_{n,a} − f_{n,i}) / (1 + Σ_i p(a|x_i)): that of center loss (Wen et al. 2016, Eq. 4) for
    memberships between 0 and 1. Shapes as in :func:`soft_center_loss`."""
    count = shares.sum(dim=0).unsqueeze(2)
    return (count * centers - torch.einsum("bna,bnd->nad", shares, features)) / (1 + count)


class TreeNetwork(Network):
    """PAT: L = Σ P(leaf|x) CE_leaf + ``attribute`` · CE_attributes + ``center`` · L_PAT (Cai et al. 2018, by our
    reading).

    Genders of training images are what a frozen network says that learned them elsewhere; clusters are 2-means of
    that network's features, of which each gender's mean is taken off. Test images are told apart by the tree's own
    nodes. centers : float32 [3,2,D], of both attribute values at each node.
    """

    centers: Tensor
    _told: Tensor  # int64 [N,2] on the device: gender and cluster of each training image
    _seen: tuple[Tensor, Tensor]  # nodes' features and shares of the step that is under way

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, TreeLoss)
        self.settings, self.shape = loss, shape
        del self.classifier  # each leaf has one
        width = self.trunk.feature
        self.nodes = nn.ModuleList(nn.Sequential(nn.Linear(width, loss.node), nn.ReLU()) for _ in range(NODES))
        self.heads = nn.ModuleList(nn.Linear(loss.node, BRANCHES) for _ in range(NODES))
        self.leaves = nn.ModuleList(
            nn.Sequential(nn.Linear(width, loss.node), nn.ReLU(), nn.Linear(loss.node, classes)) for _ in range(LEAVES)
        )
        self.register_buffer("centers", torch.zeros(NODES, BRANCHES, loss.node))

    def outputs(self, x: Tensor) -> Outputs:
        features = self.embedding(self.trunk(self.normalise(x)))
        nodes = [node(features) for node in self.nodes]
        heads = [head(node).float().log_softmax(dim=1) for head, node in zip(self.heads, nodes, strict=True)]
        weights = leaf_weights(heads[0], torch.stack(heads[1:], dim=1))
        leaves = torch.stack([leaf(features) for leaf in self.leaves], dim=1).float()
        return {
            "features": features,
            "logits": mixed(weights, leaves),
            "weights": weights,
            "leaves": leaves,
            "nodes": torch.stack(nodes, dim=1),
            "heads": torch.stack(heads, dim=1),
        }

    def begin(self, train: TrainingSet, samples: Samples, stage: NetworkStage, work: Workspace) -> None:
        told = attributes_of(train.images, self.shape, work)
        self._told = torch.tensor(told).to(work.device.name)
        counts = np.bincount(BRANCHES * told[:, 0] + told[:, 1], minlength=LEAVES)
        work.facts["leaves"] = [int(count) for count in counts]

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        settings, (gender, cluster) = self.settings, self._told[batch.images].unbind(1)
        heads, nodes = outputs["heads"], outputs["nodes"]
        shares = heads.detach().exp()
        self._seen = nodes.detach(), shares
        leaves = tree_loss(outputs["weights"], outputs["leaves"], truth.labels[batch.images])
        own = heads[:, 1:].gather(1, gender[:, None, None].expand(-1, 1, BRANCHES)).squeeze(1)  # of the gender's node
        attributes = nn.functional.nll_loss(heads[:, 0], gender) + nn.functional.nll_loss(own, cluster)
        center = soft_center_loss(nodes, shares, self.centers)
        total = leaves + settings.attribute * attributes + settings.center * center
        return {"total": total, "leaves": leaves, "attributes": attributes, "center": center}

    def after(self, batch: Batch) -> None:
        self.centers -= self.settings.alpha * soft_center_step(*self._seen, self.centers)


def attributes_of(images: np.ndarray, shape: Shape, work: Workspace) -> np.ndarray:
    """Genders and clusters of training images uint8 [N,48,48], each 0 or 1, int64 [N,2]."""
    found = outputs_of(asked(GENDER, shape, work), images, work.device)
    gender = (found["logits"][:, 0] > 0).numpy().astype(np.int64)
    features = found["features"].double().numpy()
    for value in np.unique(gender):
        features[gender == value] -= features[gender == value].mean(axis=0)
    seed = work.seed("clusters") % 2**32  # all that numpy's older generator takes
    clusters = KMeans(BRANCHES, n_init=10, random_state=seed).fit_predict(features)
    return np.column_stack([gender, clusters]).astype(np.int64)
