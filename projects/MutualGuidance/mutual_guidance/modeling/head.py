"""
Prediction layers.

Shape symbols: N images, A anchors a location, K classes, Hi and Wi the size of level i.
"""

import math

from detectron2.layers import ShapeSpec
from torch import Tensor, nn

# Detectron2's FCOS decodes distances, in strides, through a ReLU, behind which a level whose
# distances all turn negative has no gradient ever after. They start from the least ones that
# Detectron2 sends to a level.
_FIRST_DISTANCE = 4.0


class PerLevelHead(nn.Module):
    """One 3x3 convolution a task and level, nothing shared between levels, as in SSD."""

    def __init__(
        self,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        prior_prob: float = 0.01,
    ) -> None:
        """
        Args:
            input_shape: of each level. num_classes: K. num_anchors: A.
            prior_prob: probability that every class gets before training.
        """
        super().__init__()
        channels = [shape.channels for shape in input_shape]
        prior_logit = -math.log((1 - prior_prob) / prior_prob)
        self.cls_score = prediction_layers(channels, num_anchors * num_classes, prior_logit)
        self.bbox_pred = prediction_layers(channels, num_anchors * 4)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """
        Args:
            features: of each level (N, C, Hi, Wi).

        Returns:
            logits and box deltas of each level: (N, A * K, Hi, Wi) and (N, A * 4, Hi, Wi).
        """
        logits = [conv(x) for conv, x in zip(self.cls_score, features, strict=True)]
        deltas = [conv(x) for conv, x in zip(self.bbox_pred, features, strict=True)]
        return logits, deltas


class PerLevelFCOSHead(PerLevelHead):
    """:class:`PerLevelHead` for the points of FCOS, with a centerness beside the box."""

    def __init__(
        self, input_shape: list[ShapeSpec], num_classes: int, prior_prob: float = 0.01
    ) -> None:
        """See :class:`PerLevelHead`."""
        super().__init__(input_shape, num_classes, num_anchors=1, prior_prob=prior_prob)
        for layer in self.bbox_pred:
            nn.init.constant_(layer.bias, _FIRST_DISTANCE)
        self.ctrness = prediction_layers([shape.channels for shape in input_shape], 1)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """As :meth:`PerLevelHead.forward`, and the centerness logits (N, 1, Hi, Wi)."""
        logits, deltas = super().forward(features)
        centerness = [conv(x) for conv, x in zip(self.ctrness, features, strict=True)]
        return logits, deltas, centerness


def prediction_layers(
    in_channels: list[int], out_channels: int, bias: float = 0.0
) -> nn.ModuleList:
    """A 3x3 convolution for each level, initialised normally with a deviation of 0.01."""
    layers = nn.ModuleList(nn.Conv2d(c, out_channels, 3, padding=1) for c in in_channels)
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, bias)
    return layers
