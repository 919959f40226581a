"""VGG-16 with BatchNorm as a Detectron2 backbone (https://arxiv.org/abs/1409.1556)."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

# Where torchvision's sequence of layers has the maps that detectors use, the ReLU included.
_END_OF = {"conv4_3": 33, "conv5_3": 43}
_SHAPES = {
    "conv4_3": ShapeSpec(channels=512, stride=8),
    "conv5_3": ShapeSpec(channels=512, stride=16),
}


class VGG16(Backbone):
    """torchvision's VGG-16 with BatchNorm up to conv5_3."""

    def __init__(self) -> None:
        super().__init__()
        # Numbered as in torchvision, whose weights so keep their names. Its whole model would make
        # a classifier of 120 million weights first.
        layers = make_layers(cfgs["D"], batch_norm=True)
        self.features: nn.Sequential = layers[: _END_OF["conv5_3"]]
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                c2_msra_fill(layer)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(_SHAPES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to conv4_3 (N, 512, H / 8, W / 8) and conv5_3 (N, 512, H / 16, W / 16)."""
        split = _END_OF["conv4_3"]
        conv4_3 = self.features[:split](x)
        return {"conv4_3": conv4_3, "conv5_3": self.features[split:](conv4_3)}
