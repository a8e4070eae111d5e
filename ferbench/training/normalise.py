"""Normalising grey values: part of the network, so that weights always travel with their own scaling."""

import torch
from torch import Tensor, nn

_FLAT = 1e-3  # an image flatter than this (a quarter of a grey level) is noise, not a face


class Normalise(nn.Module):
    """(x − mean) / deviation on [B,1,H,W] in [0,1]. The paper names no normalisation.

    mean, deviation : one value each, buffers saved with the weights; 0.5 and 0.5 until they are set
        from the training images.
    each : 1 where every image is scaled by its own mean and deviation instead.
    """

    mean: Tensor
    deviation: Tensor
    each: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("deviation", torch.tensor(0.5))
        self.register_buffer("each", torch.tensor(0.0))

    def fit(self, images: Tensor, rule: str) -> None:
        """Set the constants by ``rule`` ("train", "half", "image") from training images uint8 [N,48,48].

        The sums are taken over the 256 grey levels in integers, so they do not depend on order.
        """
        if rule == "train":
            counts = torch.bincount(images.flatten(), minlength=256).double()
            levels = torch.arange(256).double() / 255
            mean = (counts * levels).sum() / counts.sum()
            variance = (counts * (levels - mean).square()).sum() / counts.sum()
            self.mean.copy_(mean)
            self.deviation.copy_(variance.sqrt().clamp_min(_FLAT))
        elif rule == "half":
            self.mean.fill_(0.5)
            self.deviation.fill_(0.5)
        self.each.fill_(float(rule == "image"))

    def forward(self, x: Tensor) -> Tensor:
        own_deviation, own_mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
        mean = torch.lerp(self.mean.expand_as(own_mean), own_mean, self.each)
        deviation = torch.lerp(self.deviation.expand_as(own_mean), own_deviation, self.each)
        return (x - mean) / deviation.clamp_min(_FLAT)
