"""
The pyramids of FSSD and of the paper's RetinaNet.

Shape symbols: N images, C channels, Hi and Wi the height and width of level i.
"""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Pyramid, conv_norm_relu
from .vgg import VGG16


class FSSDPyramid(Pyramid):
    """
    Feature fusion of FSSD (https://arxiv.org/abs/1712.00960): the maps of the trunk are reduced by
    1x1 convolutions, upsampled to the finest, concatenated and fused by a 3x3 convolution; further
    levels are 3x3 convolutions of stride 2.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: list[str],
        out_channels: int = 256,
        num_levels: int = 4,
        norm: str = "BN",
    ) -> None:
        """
        Args:
            bottom_up: the trunk. in_features: its maps to fuse, the finest first.
            out_channels: C of every level.
            num_levels: levels from the finest map's stride on, each of twice the stride.
        """
        shapes = bottom_up.output_shape()
        strides = [shapes[in_features[0]].stride * 2**i for i in range(num_levels)]
        super().__init__([out_channels] * num_levels, strides)
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        self.reduce = nn.ModuleList(
            conv_norm_relu(shapes[f].channels, out_channels, 1, norm=norm) for f in in_features
        )
        self.fuse = conv_norm_relu(len(in_features) * out_channels, out_channels, 3, norm=norm)
        self.downsample = nn.ModuleList(
            conv_norm_relu(out_channels, out_channels, 3, stride=2, norm=norm)
            for _ in range(num_levels - 1)
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W).

        Returns:
            Level name to (N, C, Hi, Wi), the finest first.

        Raises:
            ValueError: H or W is not a multiple of :attr:`size_divisibility`.
        """
        self.check_divisible(x)
        maps = self.bottom_up(x)
        maps = [conv(maps[f]) for conv, f in zip(self.reduce, self.in_features, strict=True)]
        size = maps[0].shape[-2:]
        level = self.fuse(torch.cat([F.interpolate(m, size=size) for m in maps], dim=1))
        levels = [level]
        for conv in self.downsample:
            levels.append(conv(levels[-1]))
        return self.named(levels)


class TopDownPyramid(Pyramid):
    """
    A top-down path over another pyramid (https://arxiv.org/abs/1612.03144, Fig. 3), here with
    normalisation and ReLU after every convolution.
    """

    def __init__(self, bottom_up: Backbone, out_channels: int = 256, norm: str = "BN") -> None:
        """
        Args:
            bottom_up: a pyramid whose levels differ by a stride of 2, the finest first.
            out_channels: C of every level.
        """
        shapes = bottom_up.output_shape()
        super().__init__([out_channels] * len(shapes), [s.stride for s in shapes.values()])
        self.bottom_up = bottom_up
        self.lateral = nn.ModuleList(
            conv_norm_relu(s.channels, out_channels, 1, norm=norm) for s in shapes.values()
        )
        self.output = nn.ModuleList(
            conv_norm_relu(out_channels, out_channels, 3, norm=norm) for _ in shapes
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Same interface as :meth:`FSSDPyramid.forward`."""
        maps = self.bottom_up(x)
        laterals = [conv(maps[name]) for conv, name in zip(self.lateral, self._shapes, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.append(lateral + F.interpolate(merged[-1], size=lateral.shape[-2:]))
        merged.reverse()
        levels = [conv(m) for conv, m in zip(self.output, merged, strict=True)]
        return self.named(levels)


def _fssd_pyramid(cfg, bottom_up: Backbone) -> FSSDPyramid:
    return FSSDPyramid(
        bottom_up,
        cfg.MODEL.PYRAMID.IN_FEATURES,
        cfg.MODEL.PYRAMID.OUT_CHANNELS,
        cfg.MODEL.PYRAMID.NUM_LEVELS,
        cfg.MODEL.PYRAMID.NORM,
    )


def _top_down_pyramid(cfg, bottom_up: Backbone) -> TopDownPyramid:
    return TopDownPyramid(
        _fssd_pyramid(cfg, bottom_up), cfg.MODEL.PYRAMID.OUT_CHANNELS, cfg.MODEL.PYRAMID.NORM
    )


@BACKBONE_REGISTRY.register()
def build_fssd_resnet_backbone(cfg, input_shape: ShapeSpec) -> FSSDPyramid:
    """FSSD's pyramid on Detectron2's ResNet."""
    return _fssd_pyramid(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_top_down_resnet_backbone(cfg, input_shape: ShapeSpec) -> TopDownPyramid:
    """The paper's RetinaNet pyramid, FSSD's with a top-down path, on Detectron2's ResNet."""
    return _top_down_pyramid(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_fssd_vgg_backbone(cfg, input_shape: ShapeSpec) -> FSSDPyramid:
    """FSSD's pyramid on VGG-16."""
    return _fssd_pyramid(cfg, VGG16())


@BACKBONE_REGISTRY.register()
def build_top_down_vgg_backbone(cfg, input_shape: ShapeSpec) -> TopDownPyramid:
    """The paper's RetinaNet pyramid on VGG-16."""
    return _top_down_pyramid(cfg, VGG16())
