"""
The pyramids of FSSD and of the paper's RetinaNet.

Shape symbols: N images, C channels, Hi and Wi the height and width of level i.
"""

import math

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import conv_norm_relu
from .vgg import VGG16


class FSSDPyramid(Backbone):
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
        super().__init__()
        shapes = bottom_up.output_shape()
        stride = shapes[in_features[0]].stride
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
        first_level = int(math.log2(stride))
        self._shapes = {
            f"p{first_level + i}": ShapeSpec(channels=out_channels, stride=stride * 2**i)
            for i in range(num_levels)
        }

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this (Detectron2 pads to it)."""
        return max(shape.stride for shape in self._shapes.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W).

        Returns:
            Level name to (N, C, Hi, Wi), the finest first.

        Raises:
            ValueError: H or W is not a multiple of :attr:`size_divisibility`.
        """
        check_divisible(x, self.size_divisibility)
        maps = self.bottom_up(x)
        maps = [conv(maps[f]) for conv, f in zip(self.reduce, self.in_features, strict=True)]
        size = maps[0].shape[-2:]
        level = self.fuse(torch.cat([F.interpolate(m, size=size) for m in maps], dim=1))
        levels = [level]
        for conv in self.downsample:
            levels.append(conv(levels[-1]))
        return dict(zip(self._shapes, levels, strict=True))


class TopDownPyramid(Backbone):
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
        super().__init__()
        shapes = bottom_up.output_shape()
        self.bottom_up = bottom_up
        self.lateral = nn.ModuleList(
            conv_norm_relu(s.channels, out_channels, 1, norm=norm) for s in shapes.values()
        )
        self.output = nn.ModuleList(
            conv_norm_relu(out_channels, out_channels, 3, norm=norm) for _ in shapes
        )
        self._shapes = {
            name: ShapeSpec(channels=out_channels, stride=s.stride) for name, s in shapes.items()
        }

    @property
    def size_divisibility(self) -> int:
        return self.bottom_up.size_divisibility

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Same interface as :meth:`FSSDPyramid.forward`."""
        maps = self.bottom_up(x)
        laterals = [conv(maps[name]) for conv, name in zip(self.lateral, self._shapes, strict=True)]
        merged = [laterals[-1]]
        for lateral in reversed(laterals[:-1]):
            merged.append(lateral + F.interpolate(merged[-1], size=lateral.shape[-2:]))
        merged.reverse()
        levels = [conv(m) for conv, m in zip(self.output, merged, strict=True)]
        return dict(zip(self._shapes, levels, strict=True))


def check_divisible(x: Tensor, divisor: int) -> None:
    """Raise ValueError unless the last two dimensions of ``x`` are multiples of ``divisor``."""
    height, width = x.shape[-2:]
    if height % divisor or width % divisor:
        raise ValueError(
            f"input of {height}x{width} pixels: this pyramid needs multiples of {divisor}; "
            "pad or resize the image (INPUT.SQUARE_SIZE)"
        )


def _fssd_pyramid(cfg, bottom_up: Backbone) -> FSSDPyramid:
    return FSSDPyramid(
        bottom_up,
        cfg.MODEL.FSSD.IN_FEATURES,
        cfg.MODEL.FSSD.OUT_CHANNELS,
        cfg.MODEL.FSSD.NUM_LEVELS,
        cfg.MODEL.FSSD.NORM,
    )


def _top_down_pyramid(cfg, bottom_up: Backbone) -> TopDownPyramid:
    return TopDownPyramid(
        _fssd_pyramid(cfg, bottom_up), cfg.MODEL.FSSD.OUT_CHANNELS, cfg.MODEL.FSSD.NORM
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
