"""The networks. Each takes a batch of one kind of input and returns ``(logits [B,K], features [B,F])``. The last layer
is called ``top`` in all of them.

:func:`initialise` sets the initial weights of 3DCNN-DAP (Liu et al. 2014): its filters are centroids of patches of the
training set, its connections are linear regressions; back-propagation continues from there. Which patches are clustered
for the filters of parts, and the scale of the filters, are our interpretation, because the paper was not available."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.data.landmarks import BROWS, COUNT, EYES, LIPS, NOSE
from ferbench.seeds import generator

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
    of 13 parts and each class, pooled: S4 [B,13,K,T-4,6,6]. The deformation cost of a part is added to its map, D5 = S4
    + Σ_l d_l φ_l with φ = (dx, dy, dz, dx², dy², dz²), distances from the part's place in cells. The score of a part is
    the maximum of D5, as in deformable part models (Felzenszwalb et al. 2010, Eq. 2 and 3). The scores are connected to
    the classes part by part (P6), then by a full layer (the logits).

    deformed : False gives 3DCNN, whose scores are the means of S4. centred : the mean score of the training set, which
    ``initialise`` sets, is subtracted from the scores.
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
        """S4 [B,13,K,T-4,6,6], and the score of each part for each class [B,13,K], the maximum of D5. In its mean, the
        deformation cost would be the same for all sequences."""
        maps = self.specific(self.generic(x[:, None])).unflatten(1, (PARTS, self.classes)).float()
        if not self.deformed:
            return maps, maps.mean(dim=(3, 4, 5))
        with _single_precision(x):
            deformed = maps + torch.einsum("pkl,pltyx->pktyx", self.cost, self.phi)
        return maps, deformed.flatten(3).max(dim=3).values

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(self.scores(x)[1])
        return self.top(features), features

    def features(self, scores: Tensor) -> Tensor:
        """P6 [B,13·K] of the scores [B,13,K]: connected to the classes for each part, then bounded by tanh."""
        with _single_precision(scores):
            return torch.einsum("bpk,pkj->bpj", scores - self.centre, self.partial).tanh().flatten(1)


def _single_precision(x: Tensor) -> torch.autocast:
    """A context without bf16, which cannot resolve the differences of scores between sequences."""
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


_PATCHES = 20_000  # patches that are clustered for the generic filters
_AROUND = 1  # cells in each direction from the place of a part, in maps of 12×12
_PENALTIES = np.logspace(-3, 3, 7)  # of the ridge regression, chosen by leave-one-out validation
_LEAST = 1e-6  # length of a patch and deviation of a filter's output; below it they are treated as constant
_ROWS = 32  # sequences at a time, because the maps of all in double precision are large


@torch.no_grad()
def initialise(network: ActionPartCnn, x: Tensor, labels: Tensor, seed: int) -> None:
    """Set the filters and connections of a network from training sequences.

    Generic filters are k-means centroids of 9×9×3 patches with mean 0 and length 1. The filter of a part for a class is
    the mean patch of the generic maps around the part's place in that class, minus the mean over all classes. All
    filters are scaled to outputs of mean 0 and deviation 1 on the training set, before tanh. The connections of each
    part, and those of all parts together, are regressions of the classes on the scores.

    x : pixels float32 [N,T,48,48], undistorted. labels : int64 [N]. Both on the network's device.
    """
    network.eval()
    generic, specific = network.generic[0], network.specific[0]
    assert isinstance(generic, nn.Conv3d)
    assert isinstance(specific, nn.Conv3d)
    generic.weight.copy_(_generic_filters(x, generic.out_channels, seed).unsqueeze(1))
    _scale(generic, x.unsqueeze(1))
    maps = torch.cat([network.generic(part) for part in x.unsqueeze(1).split(_ROWS)])
    specific.weight.copy_(_specific_filters(maps, labels, network.classes))
    _scale(specific, maps)
    scores = torch.cat([network.scores(part)[1] for part in x.split(_ROWS)])
    network.centre.copy_(scores.mean(dim=0))
    targets = nn.functional.one_hot(labels, network.classes).to(x)
    for part in range(PARTS):
        network.partial[part] = _regression(scores[:, part], targets)[0]
    weight, bias = _regression(network.features(scores), targets)
    network.top.weight.copy_(weight.T)
    network.top.bias.copy_(bias)


def _generic_filters(x: Tensor, count: int, seed: int) -> Tensor:
    """Centroids [count,3,9,9] of patches of x."""
    from sklearn.cluster import KMeans

    windows = x.unfold(1, 3, 1).unfold(2, 9, 1).unfold(3, 9, 1)
    rng = generator(seed, "patches")
    places = [torch.from_numpy(rng.integers(0, size, _PATCHES)).to(x.device) for size in windows.shape[:4]]
    patches = windows[tuple(places)].flatten(1).double()
    patches = patches - patches.mean(dim=1, keepdim=True)
    length = patches.norm(dim=1)
    patches = (patches[length > _LEAST] / length[length > _LEAST, None]).cpu().numpy()
    centroids = KMeans(count, n_init=1, random_state=int(rng.integers(2**31))).fit(patches).cluster_centers_
    return torch.from_numpy(centroids.reshape(count, 3, 9, 9)).to(x)


def _specific_filters(maps: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Filters [PARTS·K,F,3,9,9] of generic maps [N,F,T-2,20,20]."""
    side, frames = maps.shape[-1] - 8, maps.shape[2] - 2
    filters = []
    for place in PLACES:
        column, row = (min(max(round(share * side - 0.5), _AROUND), side - 1 - _AROUND) for share in place)
        around = range(-_AROUND, _AROUND + 1)
        patches = torch.stack(
            [
                maps[:, :, t : t + 3, row + dy : row + dy + 9, column + dx : column + dx + 9]
                for t in range(frames)
                for dy in around
                for dx in around
            ]
        ).mean(dim=0)
        members = (labels == label for label in range(classes))
        means = torch.stack([(patches[rows] if bool(rows.any()) else patches).mean(dim=0) for rows in members])
        filters.append(means - means.mean(dim=0))
    return torch.cat(filters)


def _scale(layer: nn.Conv3d, x: Tensor) -> None:
    """Scale and shift the filters of a layer so that their outputs for x have mean 0 and deviation 1."""
    assert layer.bias is not None
    layer.bias.zero_()
    sums = squares = torch.zeros_like(layer.bias, dtype=torch.float64)
    count = 0
    for part in x.split(_ROWS):
        outputs = layer(part).double().transpose(0, 1).flatten(1)
        sums, squares, count = sums + outputs.sum(dim=1), squares + (outputs**2).sum(dim=1), count + outputs.shape[1]
    mean = sums / count
    deviation = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(_LEAST)
    layer.weight.div_(deviation.to(layer.weight).view(-1, 1, 1, 1, 1))
    layer.bias.copy_(-mean / deviation)


def _regression(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [F,K] and intercept [K] of the ridge regression of ``targets`` [N,K] on x [N,F]."""
    from sklearn.linear_model import RidgeCV

    ridge = RidgeCV(_PENALTIES).fit(x.double().cpu().numpy(), targets.double().cpu().numpy())
    return torch.from_numpy(ridge.coef_.T.copy()).to(x), torch.from_numpy(ridge.intercept_).to(x)
