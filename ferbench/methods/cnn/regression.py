"""FN2EN: convolutions learn the maps of a teacher before they learn expressions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.asking import asked
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Loss, NetworkStage, RegressionLoss, Shape, StackShape
from ferbench.methods.cnn.trunks import StackTrunk
from ferbench.methods.interface import PRETRAIN, TrainingSet, Workspace
from ferbench.training.loop import Terms, fit
from ferbench.training.plan import Batch, single_epoch
from ferbench.training.samples import Samples


def regression_loss(maps: Tensor, wanted: Tensor) -> Tensor:
    """‖g(I) − G(I)‖², the mean over images, channels and cells; G(I) are constants (Ding, Zhou, Chellappa 2017, by our
    reading).

    maps : [B,C,H,W] of the network that learns, brought to the teacher's channels. wanted : [B,C,H,W], the teacher's.
    """
    return (maps - wanted.detach()).square().mean()


class TaughtNetwork(Network):
    """FN2EN: stage 1 teaches the convolutions a teacher's last maps, stage 2 all of the network by softmax.

    ``channels`` is the 1×1 convolution that brings the network's maps to the teacher's channels; in stage 2 it rests.
    Where a training starts from a pre-training, that went through stage 1, and stage 2 is left.
    """

    trunk: StackTrunk

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, RegressionLoss)
        assert isinstance(shape, StackShape)
        self.settings = loss
        self.channels = nn.Conv2d(self.trunk.channels, loss.teacher.widths[-1], 1)

    def regressed(self, x: Tensor) -> Tensor:
        """Images float [B,1,48,48] in [0,1] → what is held against the teacher's maps [B,C,3,3]."""
        return self.channels(self.trunk.maps(self.normalise(x)))

    def begin(self, train: TrainingSet, samples: Samples, stage: NetworkStage, work: Workspace) -> None:
        if PRETRAIN in work.identity.parents:
            return
        device, settings = work.device, self.settings
        teacher = asked("teacher", settings.teacher, work)
        assert isinstance(teacher.trunk, StackTrunk)
        theirs = teacher.trunk.maps

        def loss(batch: Batch) -> Terms:
            x, _ = samples(batch.images, batch.derived)
            with device.autocast():
                with torch.no_grad():
                    wanted = theirs(teacher.normalise(x))
                found = self.regressed(x)
            return {"total": regression_loss(found.float(), wanted.float())}

        own = stage.model_copy(update={"epochs": settings.epochs, "lr": settings.lr})
        seed = work.seed("regression plan")
        history = work.timed(
            "regression",
            lambda: fit(
                self,
                loss,
                lambda epoch: single_epoch(len(train), own.augment, own.batch, seed, epoch),
                own,
                device,
                work.checkpoint("regression/network"),
                work.report,
            ),
        )
        work.facts["regression_loss"] = [row["loss_total"] for row in history]
