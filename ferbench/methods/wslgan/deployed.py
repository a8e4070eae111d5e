"""What is handed to others: the network and its AMG as one module that takes images as they are stored."""

import copy

from torch import Tensor, nn

from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN


class Deployed(nn.Module):
    """A trained method as one frozen module in eval mode: grey images in, logits and attention maps out.

    network : copied without its auxiliary layers, which the losses alone use.
    amg : the generator of its maps; None for GFNet, which takes none.

    Images uint8 [N,1,48,48] in 0..255 → ``(logits [N,K], maps [N,2,H,W])`` in the precision of the
    weights, maps in the order of ``attention.PARTS``; without an AMG ``(logits,)``. The scaling to
    [0,1] and the network's own normalisation are inside.
    """

    def __init__(self, network: WSLGAN, amg: AttentionMapGenerator | None):
        super().__init__()
        assert (amg is not None) == network.architecture.needs_attention
        self.network = copy.deepcopy(network)
        # Also because torch.export writes Python that names every submodule, and "global" is a keyword.
        self.network.auxiliary = nn.ModuleDict()
        self.amg = copy.deepcopy(amg)
        self.eval().requires_grad_(False)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what :meth:`forward` returns, in its order."""
        return ("logits",) if self.amg is None else ("logits", "maps")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.to(self.network.normalise.mean.dtype) / 255
        if self.amg is None:
            return (self.network(x, None),)
        maps = self.amg(x)
        return self.network(x, maps), maps
