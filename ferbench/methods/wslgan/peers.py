"""The peers that our training step is held against. Frozen: a change here changes what every ratio means.

``naive`` is the loop that most code in the field has: a Dataset of pairs that rotates with PIL, a
DataLoader, the frozen AMG run at every step, both streams one after the other, eager fp32, ``loss.item()``
at every step. ``strong`` is the same loop with what a good engineer adds in a day: bf16 autocast, channels
last, torch.compile. Model, losses, optimizer and plan are those of our own step, so both give its losses.
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.losses import total_loss
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.settings import LossWeights

ANGLES = (0, -15, -10, -5, 5, 10, 15)
NAMES = ("naive", "strong")


class Pairs(Dataset):
    """Pairs of derived samples, made when asked for: ((image, derived), (image, derived)) for each."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, pairs: list[tuple[int, int, int, int]]):
        self.images = [Image.fromarray(image) for image in images]
        self.labels, self.pairs = labels, pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, int]:
        first, turned, second, turned_too = self.pairs[index]
        return (
            self._sample(first, turned),
            self._sample(second, turned_too),
            int(self.labels[first]),
            int(self.labels[second]),
        )

    def _sample(self, image: int, derived: int) -> Tensor:
        picture = self.images[image]
        if angle := ANGLES[derived % len(ANGLES)]:
            picture = picture.rotate(angle, Image.Resampling.BILINEAR)
        if derived >= len(ANGLES):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture, dtype=np.float32) / 255).unsqueeze(0)


class Loop:
    """A peer at work: :meth:`step` trains on the next pairs, round and round.

    batch : pairs in a step. workers : processes of the DataLoader.
    """

    def __init__(
        self,
        name: str,
        network: WSLGAN,
        amg: AttentionMapGenerator | None,
        data: Pairs,
        batch: int,
        weights: LossWeights,
        lr: float,
        momentum: float,
        weight_decay: float,
        device: str,
        workers: int,
    ):
        self.strong, self.device, self.weights = name == "strong", device, weights
        self.network, self.amg = network.to(device).train(), None if amg is None else amg.to(device).freeze()
        if self.strong:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.amg is not None:
                self.amg.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(network.parameters(), lr, momentum, weight_decay=weight_decay)
        self.forward = torch.compile(self._forward) if self.strong else self._forward
        self.loader = DataLoader(data, batch, num_workers=workers, persistent_workers=workers > 0, drop_last=True)
        self.batches: Iterator | None = None

    def step(self) -> float:
        """One step: returns its loss."""
        first, second, labels, labels_too = (part.to(self.device) for part in self._next())
        with torch.autocast(self.device, torch.bfloat16, enabled=self.strong):
            logits, vectors = self.forward(first)
            logits_too, vectors_too = self.forward(second)
        terms = total_loss(
            (logits.float(), logits_too.float()), (labels, labels_too), (vectors, vectors_too), self.weights
        )
        self.optimizer.zero_grad()
        terms["total"].backward()
        self.optimizer.step()
        return terms["total"].item()

    def _forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps = None
        if self.strong:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.amg is not None:
            with torch.no_grad():
                maps = self.amg(x)
        return self.network.stream(x, maps)

    def _next(self) -> list[Tensor]:
        if self.batches is None:
            self.batches = iter(self.loader)
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)
