"""Networks that are trained with a frozen parent network, which learned attributes of faces: FN2EN and PAT-ResNet."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from ferbench.methods.cnn.losses import (
    class_log_probabilities,
    leaf_log_probabilities,
    regression_loss,
    soft_center_loss,
    soft_center_step,
    tree_loss,
)
from ferbench.methods.cnn.networks import CnnNetwork, Outputs, TrainingLabels
from ferbench.methods.cnn.recipe import GENDER, TEACHER, CnnStage, Loss, RegressionLoss, Shape, StackShape, TreeLoss
from ferbench.methods.cnn.trunks import StackTrunk
from ferbench.methods.interface import PRETRAIN, TrainingSet, Workspace
from ferbench.training.checkpoint import unpack
from ferbench.training.loop import Terms
from ferbench.training.networks import on_images
from ferbench.training.plan import Batch, Step, single_epoch
from ferbench.training.samples import Samples

BRANCHES = 2  # of each node of the tree: two genders, then two clusters of faces of each gender
LEAVES = BRANCHES**2
NODES = 1 + BRANCHES  # the root, which splits by gender, and a node for each gender, which splits by cluster


def load_frozen_parent(role: str, shape: Shape, work: Workspace) -> CnnNetwork:
    """Rebuild the network of a parent run, frozen, on the device. shape : of that network."""
    tensors = unpack(work.parent(role)[1])[0]
    network = CnnNetwork(shape, None, len(tensors["classifier.weight"]))
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    work.device.place(network)
    return network


class RegressionNetwork(CnnNetwork):
    """FN2EN (Ding, Zhou, Chellappa 2017): in stage 1 the convolutions learn the last maps of a teacher; in stage 2 the
    whole network learns by softmax. A training that starts from a pre-training omits stage 1, which the pre-training
    contains.

    channels : the 1×1 convolution to the number of channels of the teacher's maps; stage 2 does not use it.
    """

    trunk: StackTrunk

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, RegressionLoss)
        assert isinstance(shape, StackShape)
        self.settings = loss
        self.channels = nn.Conv2d(self.trunk.channels, loss.teacher.widths[-1], 1)

    def regressed(self, x: Tensor) -> Tensor:
        """Images float [B,1,48,48] in [0,1] → maps [B,C,3,3] to be compared with the teacher's."""
        return self.channels(self.trunk.maps(self.normalise(x)))

    def before_training(self, train: TrainingSet, samples: Samples, stage: CnnStage, work: Workspace) -> None:
        if PRETRAIN in work.identity.parents:
            return
        device, settings = work.device, self.settings
        teacher = load_frozen_parent(TEACHER, settings.teacher, work)
        assert isinstance(teacher.trunk, StackTrunk)
        teacher_maps = teacher.trunk.maps

        def loss(batch: Batch) -> Terms:
            x, _ = samples(batch.images, batch.derived)
            with device.autocast():
                with torch.no_grad():
                    target = teacher_maps(teacher.normalise(x))
                maps = self.regressed(x)
            return {"total": regression_loss(maps.float(), target.float())}

        first = stage.model_copy(update={"epochs": settings.epochs, "lr": settings.lr})
        seed = work.seed("regression plan")

        def plan(epoch: int) -> list[Step]:
            return single_epoch(len(train), first.augment, first.batch, seed, epoch)

        history = work.train("regression", self, loss, plan, first, checkpoint="regression/network")
        work.facts["regression_loss"] = [row["loss_total"] for row in history]


class TreeNetwork(CnnNetwork):
    """PAT-ResNet: a tree of attributes in which each leaf has its features and its classifier,
    L = Σ P(leaf|x) CE_leaf + ``attribute`` · CE_attributes + ``center`` · L_PAT (Cai et al. 2018, by our
    interpretation).

    The genders of training images are predictions of a frozen parent network; their clusters are 2-means of its
    features, centred for each gender. For test images the nodes of the tree predict both.

    centers : float32 [3,2,D], a buffer: those of both attribute values at each node.
    """

    centers: Tensor
    _attributes: Tensor  # int64 [N,2] on the device: gender and cluster of each training image
    _last: tuple[Tensor, Tensor]  # the nodes' features and shares in the current step

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, TreeLoss)
        self.settings, self.shape = loss, shape
        del self.classifier  # each leaf has a classifier
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
        weights = leaf_log_probabilities(heads[0], torch.stack(heads[1:], dim=1))
        leaves = torch.stack([leaf(features) for leaf in self.leaves], dim=1).float()
        return {
            "features": features,
            "logits": class_log_probabilities(weights, leaves),
            "weights": weights,
            "leaves": leaves,
            "nodes": torch.stack(nodes, dim=1),
            "heads": torch.stack(heads, dim=1),
        }

    def before_training(self, train: TrainingSet, samples: Samples, stage: CnnStage, work: Workspace) -> None:
        attributes = attributes_of(train.images, self.shape, work)
        self._attributes = torch.tensor(attributes).to(work.device.name)
        work.facts["leaves"] = np.bincount(BRANCHES * attributes[:, 0] + attributes[:, 1], minlength=LEAVES).tolist()

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        settings, (gender, cluster) = self.settings, self._attributes[batch.images].unbind(1)
        heads, nodes = outputs["heads"], outputs["nodes"]
        shares = heads.detach().exp()
        self._last = nodes.detach(), shares
        leaves = tree_loss(outputs["weights"], outputs["leaves"], labels.classes[batch.images])
        node_of_gender = heads[:, 1:].gather(1, gender[:, None, None].expand(-1, 1, BRANCHES)).squeeze(1)
        attributes = nn.functional.nll_loss(heads[:, 0], gender) + nn.functional.nll_loss(node_of_gender, cluster)
        center = soft_center_loss(nodes, shares, self.centers)
        total = leaves + settings.attribute * attributes + settings.center * center
        return {"total": total, "leaves": leaves, "attributes": attributes, "center": center}

    def after_step(self, batch: Batch) -> None:
        self.centers -= self.settings.alpha * soft_center_step(*self._last, self.centers)


def attributes_of(images: np.ndarray, shape: Shape, work: Workspace) -> np.ndarray:
    """Genders and clusters of training images uint8 [N,48,48], each 0 or 1, int64 [N,2]."""
    network = load_frozen_parent(GENDER, shape, work)

    def output(name: str) -> np.ndarray:
        return on_images(lambda x: network.outputs(x)[name], work.device, torch.tensor(images)).numpy()

    gender = (output("logits")[:, 0] > 0).astype(np.int64)
    features = output("features").astype(np.float64)
    for value in np.unique(gender):
        features[gender == value] -= features[gender == value].mean(axis=0)
    seed = work.seed("clusters") % 2**32  # the range that scikit-learn accepts
    clusters = KMeans(BRANCHES, n_init=10, random_state=seed).fit_predict(features)
    return np.column_stack([gender, clusters]).astype(np.int64)
