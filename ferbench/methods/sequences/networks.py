"""The networks. Each takes a batch of one kind of input and returns ``(logits [B,K], features [B,F])``. The last layer
is called ``top`` in all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.data.landmarks import BROWS, COUNT, EYES, LIPS, NOSE

ENLARGED, CROP = 64, 60  # pixels: MSCNN enlarges images and reads their centre
UNITS = (30, 30, 60, 60, 90, 90)  # of PHRNN, level by level, from a public re-implementation
_LEAST_DEVIATION = 1e-3  # of a normalised coordinate; one that moves less is treated as constant
PARTS = 13  # of a face in 3DCNN-DAP
# The places of the parts on the crop, as shares of its sides (x, y): inner and outer brows, eyes, root and wings of the
# nose, corners of the mouth, lips. They are our interpretation: the paper defines them by hand and prints no numbers.
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


class Dtan(nn.Module):
    """DTAN (Jung et al. 2015, section 3.1), which reads appearance: the frames are channels of one image, so the first
    convolution has separate kernels for each. Pixels [B,T,48,48] → two unpadded 5×5 convolutions with 64 filters, each
    with max-pooling → fully connected 500, 500, K."""

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


class TrackNetwork(nn.Module):
    """A network that reads tracks of landmarks [B,T,P,2] and standardises each coordinate. The distances between the
    parts of a face are much larger than the differences between faces, so without this it hardly learns."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, steps: int, points: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(steps, points, 2))
        self.register_buffer("deviation", torch.ones(steps, points, 2))

    def standardise(self, tracks: Tensor) -> None:
        """Set the mean and the deviation of each coordinate from training tracks [N,T,P,2]."""
        self.mean.copy_(tracks.mean(dim=0))
        self.deviation.copy_(tracks.std(dim=0, correction=0).clamp_min(_LEAST_DEVIATION))

    def standardised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation


class Dtgn(TrackNetwork):
    """DTGN (Jung et al. 2015, section 3.2), which reads geometry: tracks as one row → fully connected 100, 600, K."""

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


class Phrnn(TrackNetwork):
    """PHRNN (Zhang et al. 2017): bidirectional RNNs read the tracks of four parts, which are merged level by level:
    brows with eyes; these with the nose as the upper half, and nose with mouth as the lower half; then both halves in a
    bidirectional LSTM, whose last states a linear layer classifies. Tracks [B,T,68,2]; the jaw is not used."""

    def __init__(self, steps: int, classes: int):
        super().__init__(steps, COUNT)

        def level(inputs: dict[str, int], units: int) -> nn.ModuleDict:
            return nn.ModuleDict({name: _bidirectional(size, units) for name, size in inputs.items()})

        first, second, third, fourth, fifth, sixth = UNITS
        self.parts = {"brows": BROWS, "eyes": EYES, "nose": NOSE, "mouth": LIPS}
        self.first = level({name: 2 * len(points) for name, points in self.parts.items()}, first)
        self.second = level({"eyes": 4 * first, "nose": 2 * first, "mouth": 2 * first}, second)
        self.third = level(dict.fromkeys(("eyes", "nose", "mouth"), 2 * second), third)
        self.fourth = level(dict.fromkeys(("upper", "lower"), 4 * third), fourth)
        self.fifth = level(dict.fromkeys(("upper", "lower"), 2 * fourth), fifth)
        self.whole = nn.LSTM(4 * fifth, sixth, batch_first=True, bidirectional=True)
        self.top = nn.Linear(2 * sixth, classes)

    def levels(self, x: Tensor) -> list[dict[str, Tensor]]:
        """States [B,T,2·units] of each level by the part of the face."""
        x = self.standardised(x)
        first = _each(self.first, {name: x[:, :, list(points)].flatten(2) for name, points in self.parts.items()})
        eyes = torch.cat([first["brows"], first["eyes"]], 2)
        second = _each(self.second, {"eyes": eyes, "nose": first["nose"], "mouth": first["mouth"]})
        third = _each(self.third, second)
        upper = torch.cat([third["eyes"], third["nose"]], 2)
        lower = torch.cat([third["nose"], third["mouth"]], 2)
        fourth = _each(self.fourth, {"upper": upper, "lower": lower})
        return [first, second, third, fourth, _each(self.fifth, fourth)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        last = self.levels(x)[-1]
        _, (state, _) = self.whole(torch.cat([last["upper"], last["lower"]], 2))
        features = torch.cat([state[0], state[1]], 1)
        return self.top(features), features


class Mscnn(nn.Module):
    """MSCNN (Zhang et al. 2017): one frame [B,48,48], enlarged to 64×64, of which the centre 60×60 is read → maps 28×28
    of 10 channels, 12×12 of 20, 4×4 and 2×2 of 40 → fully connected 80, K. The kernels (5, 5, 5, 3, all but the last
    with max-pooling) follow from these sizes."""

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


class ActionPartCnn(nn.Module):
    """3DCNN-DAP (Liu et al. 2014): pixels [B,T,48,48] → generic 3-D filters 9×9×3, pooled → one filter 9×9×3 for each
    of 13 parts and each class, pooled: S4 [B,13,K,T-4,6,6]. The deformation of a part is added to its map, D5 = S4 +
    Σ_l d_l φ_l with φ = (dx, dy, dz, dx², dy², dz²), distances from the part's place. The mean of D5 is connected to
    the classes part by part (P6), then by a full layer (the logits).

    deformed : False gives 3DCNN, which uses the mean of S4. centred : the mean score of the training set, which
    ``centroids.initialise`` sets, is subtracted from the scores.
    """

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
        initial = torch.tensor([0.0, 0.0, 0.0, -0.01, -0.01, -0.01])
        self.cost = nn.Parameter(initial.repeat(PARTS, classes, 1), requires_grad=deformed)
        self.partial = nn.Parameter(torch.empty(PARTS, classes, classes))  # from each part's scores to the classes
        nn.init.normal_(self.partial, std=classes**-0.5)
        self.top = nn.Linear(PARTS * classes, classes)
        self.register_buffer("centre", torch.zeros(PARTS, classes), persistent=centred)

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S4 [B,13,K,T-4,6,6], and the score of each part for each class [B,13,K], the mean over D5."""
        maps = self.specific(self.generic(x[:, None])).unflatten(1, (PARTS, self.classes)).float()
        deformed = maps
        if self.deformed:
            with _single_precision(x):
                deformed = maps + torch.einsum("pkl,pltyx->pktyx", self.cost, self.phi)
        return maps, deformed.mean(dim=(3, 4, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.scores(x)[1])
        return self.top(features), features

    def features(self, scores: Tensor) -> Tensor:
        """P6 [B,13·K] of the scores [B,13,K]: connected to the classes for each part, then bounded by tanh."""
        with _single_precision(scores):
            return torch.einsum("bpk,pkj->bpj", scores - self.centre, self.partial).tanh().flatten(1)


def _single_precision(x: Tensor) -> torch.autocast:
    """A context without bf16, which cannot resolve the differences of means over whole maps between sequences."""
    return torch.autocast(x.device.type, enabled=False)


def deformations(frames: int, side: int) -> Tensor:
    """φ of each cell of a map for each part: [13,6,frames,side,side], distances in cells."""
    z, y, x = torch.meshgrid(
        torch.arange(frames).float(), torch.arange(side).float(), torch.arange(side).float(), indexing="ij"
    )
    features = []
    for across, down in PLACES:
        dx, dy, dz = x - (across * side - 0.5), y - (down * side - 0.5), z - (frames - 1) / 2
        features.append(torch.stack([dx, dy, dz, dx**2, dy**2, dz**2]))
    return torch.stack(features)


def _bidirectional(inputs: int, units: int) -> nn.RNN:
    return nn.RNN(inputs, units, batch_first=True, bidirectional=True)


def _each(level: nn.ModuleDict, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: level[name](x)[0] for name, x in inputs.items()}
