"""VGG-16 with BatchNorm as a Detectron2 backbone (https://arxiv.org/abs/1409.1556)."""

from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torchvision.models import vgg16_bn

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
        # Numbered as in torchvision, whose weights so keep their names.
        self.features: nn.Sequential = vgg16_bn(weights=None).features[: _END_OF["conv5_3"]]

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(_SHAPES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) to conv4_3 (N, 512, H / 8, W / 8) and conv5_3 (N, 512, H / 16, W / 16)."""
        split = _END_OF["conv4_3"]
        conv4_3 = self.features[:split](x)
        return {"conv4_3": conv4_3, "conv5_3": self.features[split:](conv4_3)}
