"""The networks. Each takes a batch of one kind of input and gives ``(logits [B,K], features [B,F])``; the module
``top`` makes the logits of the features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.data.landmarks import BROWS, COUNT, EYES, LIPS, NOSE

CROP = 60  # pixels: MSCNN reads 60×60 of images enlarged to
ENLARGED = 64
# Of PHRNN, level by level: those of a public re-implementation.
UNITS = (30, 30, 60, 60, 90, 90)
_STILL = 1e-3  # of a normalised coordinate; one that moves less is still
PARTS = 13  # of a face, of 3DCNN-DAP
# Where they lie on the crop, in shares of its sides (x, y): inner and outer brows, eyes, root and wings of the nose,
# corners of the mouth, lips. Our reading: the paper's are defined by hand, and are not printed as numbers.
PLACES = (
    (0.22, 0.28),
    (0.40, 0.30),
    (0.60, 0.30),
    (0.78, 0.28),
    (0.32, 0.40),
    (0.68, 0.40),
    (0.50, 0.42),
    (0.41, 0.58),
    (0.59, 0.58),
    (0.36, 0.77),
    (0.64, 0.77),
    (0.50, 0.71),
    (0.50, 0.84),
)


class Appearance(nn.Module):
    """DTAN (Jung et al. 2015, section 3.1): frames are channels of one image, so that each has kernels of its own in
    the first convolution. Pixels [B,T,48,48] → two unpadded 5×5 convolutions with 64 filters, each pooled, fully
    connected 500, 500, K."""

    def __init__(self, frames: int, classes: int, dropout: float, size: int = 48):
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        self.maps = nn.Sequential(
            nn.Conv2d(frames, 64, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64 * side * side, 500),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(500, 500),
            nn.ReLU(),
        )
        self.top = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.maps(x)
        return self.top(features), features


class Tracks(nn.Module):
    """A network that reads tracks [B,T,P,2], each coordinate standardised by the training set: parts of a face lie
    much farther apart than faces differ, and without that nothing is learned in the time that there is."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, steps: int, points: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(steps, points, 2))
        self.register_buffer("deviation", torch.ones(steps, points, 2))

    def standardise(self, tracks: Tensor) -> None:
        """Take mean and deviation of each coordinate from training tracks [N,T,P,2]."""
        self.mean.copy_(tracks.mean(dim=0))
        self.deviation.copy_(tracks.std(dim=0, correction=0).clamp_min(_STILL))

    def standardised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class Geometry(Tracks):
    """DTGN (section 3.2): tracks of landmarks as one row → fully connected 100, 600, K."""

    def __init__(self, steps: int, points: int, classes: int, dropout: float):
        super().__init__(steps, points)
        self.maps = nn.Sequential(
            nn.Flatten(),
            nn.Linear(steps * points * 2, 100),
            nn.ReLU(),
            nn.Linear(100, 600),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.top = nn.Linear(600, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.maps(self.standardised(x))
        return self.top(features), features


class Hierarchy(Tracks):
    """PHRNN (Zhang et al. 2017): tracks of four parts through bidirectional RNNs, merged level by level: brows with
    eyes, then with the nose above and nose with mouth below (the nose is in both), then all, into a bidirectional LSTM,
    of whose last states a linear layer makes the logits. Tracks [B,T,68,2]; the jaw is not read."""

    def __init__(self, steps: int, classes: int):
        super().__init__(steps, COUNT)

        def level(inputs: dict[str, int], units: int) -> nn.ModuleDict:
            return nn.ModuleDict({name: _both(size, units) for name, size in inputs.items()})

        one, two, three, four, five, six = UNITS
        self.parts = {"brows": BROWS, "eyes": EYES, "nose": NOSE, "mouth": LIPS}
        self.first = level({name: 2 * len(points) for name, points in self.parts.items()}, one)
        self.second = level({"eyes": 4 * one, "nose": 2 * one, "mouth": 2 * one}, two)
        self.third = level(dict.fromkeys(("eyes", "nose", "mouth"), 2 * two), three)
        self.fourth = level(dict.fromkeys(("upper", "lower"), 4 * three), four)
        self.fifth = level(dict.fromkeys(("upper", "lower"), 2 * four), five)
        self.whole = nn.LSTM(4 * five, six, batch_first=True, bidirectional=True)
        self.top = nn.Linear(2 * six, classes)

    def levels(self, x: Tensor) -> list[dict[str, Tensor]]:
        """States [B,T,2·units] of each level by the part of the face."""
        x = self.standardised(x)
        found = [_each(self.first, {name: x[:, :, list(own)].flatten(2) for name, own in self.parts.items()})]
        last = found[-1]
        merged = {"eyes": torch.cat([last["brows"], last["eyes"]], 2), "nose": last["nose"], "mouth": last["mouth"]}
        found += [_each(self.second, merged)]
        found += [_each(self.third, found[-1])]
        last = found[-1]
        halves = {
            "upper": torch.cat([last["eyes"], last["nose"]], 2),
            "lower": torch.cat([last["nose"], last["mouth"]], 2),
        }
        found += [_each(self.fourth, halves)]
        found += [_each(self.fifth, found[-1])]
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        last = self.levels(x)[-1]
        _, (state, _) = self.whole(torch.cat([last["upper"], last["lower"]], 2))
        features = torch.cat([state[0], state[1]], 1)
        return self.top(features), features


class Still(nn.Module):
    """MSCNN (Zhang et al. 2017): one frame [B,48,48], enlarged to 64×64, its middle 60×60 → maps 28×28 of 10, 12×12 of
    20, 4×4 and 2×2 of 40 → fully connected 80, K. The kernels (5, 5, 5, 3, pooled but for the last) follow from these
    sizes."""

    def __init__(self, classes: int):
        super().__init__()

        def block(inputs: int, outputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, 5), nn.ReLU(), nn.MaxPool2d(2), nn.LocalResponseNorm(5)]

        self.maps = nn.Sequential(*block(1, 10), *block(10, 20), *block(20, 40), nn.Conv2d(40, 40, 3), nn.ReLU())
        self.inner = nn.Linear(160, 80)
        self.top = nn.Linear(80, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        large = nn.functional.interpolate(x[:, None], (ENLARGED, ENLARGED), mode="bilinear", align_corners=False)
        edge = (ENLARGED - CROP) // 2
        features = self.inner(self.maps(large[:, :, edge:-edge, edge:-edge]).flatten(1))
        return self.top(features.relu()), features


class ActionParts(nn.Module):
    """3DCNN-DAP (Liu et al. 2014): pixels [B,T,48,48] → generic 3-D filters 9×9×3, pooled; for each of 13 parts and
    each class a filter 9×9×3, pooled: S4 [B,13,K,T-4,6,6]. To each part's map its deformation is added,
    D5 = S4 + Σ_l d_l φ_l with φ = (dx, dy, dz, dx², dy², dz²) from the part's place; its mean is connected to the
    classes part by part (P6), then wholly (the logits). deformed : without, it is the mean of the map itself: 3DCNN.
    centred : scores are taken from the training set's mean, which ``centroids.begin`` sets with all else."""

    phi: Tensor
    centre: Tensor

    def __init__(self, frames: int, classes: int, filters: int, deformed: bool, centred: bool = False):
        super().__init__()
        if frames < 5:
            raise ValueError("two 3-D filters of three frames each need five frames")
        self.classes, self.deformed = classes, deformed
        self.generic = nn.Sequential(nn.Conv3d(1, filters, (3, 9, 9)), nn.Tanh(), nn.AvgPool3d((1, 2, 2)))
        self.specific = nn.Sequential(
            nn.Conv3d(filters, PARTS * classes, (3, 9, 9)), nn.Tanh(), nn.AvgPool3d((1, 2, 2))
        )
        side = ((48 - 8) // 2 - 8) // 2
        self.register_buffer("phi", deformations(frames - 4, side))
        start = torch.tensor([0.0, 0.0, 0.0, -0.01, -0.01, -0.01])
        self.cost = nn.Parameter(start.repeat(PARTS, classes, 1), requires_grad=deformed)
        self.partial = nn.Parameter(torch.empty(PARTS, classes, classes))  # each part's scores to the classes
        nn.init.normal_(self.partial, std=classes**-0.5)
        self.top = nn.Linear(PARTS * classes, classes)
        self.register_buffer("centre", torch.zeros(PARTS, classes), persistent=centred)

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S4 [B,13,K,T-4,6,6] and each part's score for each class [B,13,K], the mean over its bent map."""
        maps = self.specific(self.generic(x[:, None])).unflatten(1, (PARTS, self.classes)).float()
        bent = maps
        if self.deformed:
            with _exact(x):
                bent = maps + torch.einsum("pkl,pltyx->pktyx", self.cost, self.phi)
        return maps, bent.mean(dim=(3, 4, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.scores(x)[1])
        return self.top(features), features

    def features(self, scores: Tensor) -> Tensor:
        """Each part's scores [B,13,K], connected to the classes and bounded: P6 [B,13·K]."""
        with _exact(scores):
            return torch.einsum("bpk,pkj->bpj", scores - self.centre, self.partial).tanh().flatten(1)


def _exact(x: Tensor) -> torch.autocast:
    """No reduced precision: means over whole maps differ from sequence to sequence by less than bf16 resolves."""
    return torch.autocast(x.device.type, enabled=False)


def deformations(frames: int, side: int) -> Tensor:
    """φ of every place of a map from each part's: [13,6,frames,side,side], distances in cells."""
    z, y, x = torch.meshgrid(
        torch.arange(frames).float(), torch.arange(side).float(), torch.arange(side).float(), indexing="ij"
    )
    found = []
    for across, down in PLACES:
        dx, dy, dz = x - (across * side - 0.5), y - (down * side - 0.5), z - (frames - 1) / 2
        found.append(torch.stack([dx, dy, dz, dx**2, dy**2, dz**2]))
    return torch.stack(found)


def _both(inputs: int, units: int) -> nn.RNN:
    return nn.RNN(inputs, units, batch_first=True, bidirectional=True)


def _each(level: nn.ModuleDict, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: level[name](x)[0] for name, x in inputs.items()}
