"""WS-LGAN (Figure 2) and, by the arguments of its architecture, every ablation of Tables 8, 9 and 10."""

from torch import Tensor, nn

from ferbench.methods.wslgan.attention import PARTS, bilinear_attention_pooling
from ferbench.methods.wslgan.densenet import DenseNet
from ferbench.methods.wslgan.fusion import ConcatFusion, SelectiveFeatureUnit, SumFusion
from ferbench.methods.wslgan.settings import Architecture
from ferbench.training.normalise import Normalise


class WSLGAN(nn.Module):
    """One stream of stage 2 without the (frozen, separate) AMG: FE, attention pooling, SFU, classifier.

    Both siamese streams are this one module called twice: their weights are shared.
    Images are [B,1,48,48] with values in [0,1]; attention maps are [B,2,H,W] (``attention.PARTS``).
    """

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        self.architecture = architecture
        self.normalise = Normalise()
        self.extractor = DenseNet(architecture.extractor_layers, architecture.growth, architecture.stem_stride)
        channels, count = self.extractor.channels, len(architecture.branches)
        self.fusion: SelectiveFeatureUnit | SumFusion | ConcatFusion
        if count == 1 or architecture.fusion == "sum":
            self.fusion = SumFusion(channels, count)  # the sum of a single branch is that branch
        elif architecture.fusion == "sfu":
            self.fusion = SelectiveFeatureUnit(channels, count, architecture.reduction, architecture.sfu_order)
        else:
            self.fusion = ConcatFusion(channels, count)
        area = architecture.map_size**2 if architecture.classifier_input == "flatten" else 1
        self.classifier = nn.Linear(self.fusion.channels * area, classes)
        # "an auxiliary fully connected (FC) layer to represent the eyes-related features" (III-C-2);
        # used by the losses alone, so a test image never passes through them.
        self.auxiliary = nn.ModuleDict(
            {name: nn.Linear(channels, architecture.embedding) for name in architecture.branches}
            if architecture.contrastive
            else {}
        )

    def branches(self, x: Tensor, attention: Tensor | None) -> dict[str, Tensor]:
        """Images and maps → F_e, F_m, F_g by name (those that the method has), [B,C,H,W] each.

        ``attention`` may be None for GFNet, which has no local features.
        """
        whole = self.extractor(self.normalise(x))
        features = {"global": whole}
        if attention is not None:
            for index, part in enumerate(PARTS):
                features[part] = bilinear_attention_pooling(whole, attention[:, index])
        return {name: features[name] for name in self.architecture.branches}

    def classify(self, branches: dict[str, Tensor]) -> Tensor:
        """Fuse the branches and classify: logits [B,K]."""
        fused = self.fusion(list(branches.values()))
        pooled = fused.mean(dim=(2, 3)) if self.architecture.classifier_input == "gap" else fused.flatten(1)
        return self.classifier(pooled)

    def forward(self, x: Tensor, attention: Tensor | None) -> Tensor:
        """A test image in one stream: images and maps → logits [B,K]."""
        return self.classify(self.branches(x, attention))

    def stream(self, x: Tensor, attention: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """One training stream: logits [B,K] and the vectors f(x) [B,embedding] of the contrastive losses."""
        branches = self.branches(x, attention)
        vectors = {name: layer(branches[name].mean(dim=(2, 3))) for name, layer in self.auxiliary.items()}
        return self.classify(branches), vectors
