"""What is handed to others: the network and its AMG as one module that takes images as they are stored."""

import copy

from torch import Tensor, nn

from ferbench.methods.wslgan.attention import PARTS, AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.training.deployable import Deployable


class Deployed(Deployable):
    """A trained method as one frozen module in eval mode: grey images in, logits and attention maps out.

    network : copied without its auxiliary layers, which the losses alone use.
    amg : the generator of its maps; None for GFNet, which takes none.

    Images uint8 [N,1,48,48] in 0..255 → ``(logits [N,K], maps [N,2,H,W])`` in the precision of the
    weights, maps in the order of ``attention.PARTS``; without an AMG ``(logits,)``. The scaling to
    [0,1] and the network's own normalisation are inside.
    """

    parts = PARTS

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
        return ("logits",) if self.amg is None else ("logits", "maps")

    def for_export(self) -> nn.Module:
        """Batch normalisation folded into thresholds and convolutions (``folded``)."""
        from ferbench.methods.wslgan.folded import folded

        return folded(self)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.to(self.network.normalise.mean.dtype) / 255
        if self.amg is None:
            return (self.network(x, None),)
        maps = self.amg(x)
        return self.network(x, maps), maps
