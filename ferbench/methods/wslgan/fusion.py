"""Fusing local and global features: the Selective Feature Unit (Eq. 5-9) and its ablations (Table 9)."""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.settings import SfuOrder


class SelectiveFeatureUnit(nn.Module):
    """Adaptive weighted fusion of branches, channel by channel (section III-D-2, Figure 5).

    Fuse: U = ΣF, s = mean of U over space, z = FC → BN → ReLU (s) of length d = C / reduction.
    Select: a softmax over the branches for each channel of E_c·z, M_c·z, G_c·z (Eq. 5-7, 9), then
    V_c = e_c·F_e,c + m_c·F_m,c + g_c·F_g,c (Eq. 8).

    The matrices E, M, G are one tensor ``select`` [branches, C, d], without bias as printed.
    ``order`` reads "a fully connected layer with ReLU function and Batch Normalization": the order of
    SK convolution (FC-BN-ReLU), or the order of the words.
    """

    def __init__(self, channels: int, branches: int = 3, reduction: int = 16, order: SfuOrder = "fc-bn-relu"):
        super().__init__()
        length = channels // reduction
        relu, norm = nn.ReLU(), nn.BatchNorm1d(length)
        self.squeeze = nn.Sequential(
            nn.Linear(channels, length), *((norm, relu) if order == "fc-bn-relu" else (relu, norm))
        )
        self.select = nn.Parameter(torch.empty(branches, channels, length))
        nn.init.uniform_(self.select, -(length**-0.5), length**-0.5)  # the bound of nn.Linear
        self.channels = channels

    def weights(self, branches: list[Tensor]) -> Tensor:
        """Branches [B,C,H,W] each → soft attention [B,branches,C], summing to 1 over the branches."""
        statistics = torch.stack(branches).sum(dim=0).mean(dim=(2, 3))
        compact = self.squeeze(statistics)
        scores = torch.einsum("ncd,bd->bnc", self.select, compact)
        wide = torch.promote_types(scores.dtype, torch.float32)  # bfloat16 is too coarse for an exponential
        return torch.softmax(scores, dim=1, dtype=wide).to(scores.dtype)

    def forward(self, branches: list[Tensor]) -> Tensor:
        weights = self.weights(branches)
        return torch.stack([features * weights[:, i, :, None, None] for i, features in enumerate(branches)]).sum(dim=0)


class SumFusion(nn.Module):
    """WS-LGAN-Sum: "the sum of all feature maps at the same spatial location and feature channel"."""

    def __init__(self, channels: int, branches: int = 3):
        super().__init__()
        self.channels = channels

    def forward(self, branches: list[Tensor]) -> Tensor:
        return torch.stack(branches).sum(dim=0)


class ConcatFusion(nn.Module):
    """WS-LGAN-Concat: the feature maps stacked across the channels, [B,branches·C,H,W]."""

    def __init__(self, channels: int, branches: int = 3):
        super().__init__()
        self.channels = branches * channels

    def forward(self, branches: list[Tensor]) -> Tensor:
        return torch.cat(branches, dim=1)
