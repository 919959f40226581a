"""
The pyramid of RFBNet (Liu et al., ECCV 2018, https://arxiv.org/abs/1711.07767).

Shape symbols: N images, C channels, Hi and Wi the height and width of level i.
"""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import Pyramid, conv_norm_relu
from .vgg import VGG16

Size = int | tuple[int, int]


class RFB(nn.Module):
    """
    Receptive field block: branches of growing kernels, each ended by a 3x3 convolution of growing
    dilation, concatenated, mixed by a linear 1x1 convolution and added to a 1x1 shortcut.
    """

    def __init__(self, branches: list[nn.Module], mix: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.mix = mix
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, Hi, Wi) to (N, C_out, Hi / stride, Wi / stride)."""
        mixed = self.mix(torch.cat([branch(x) for branch in self.branches], dim=1))
        return F.relu(mixed + self.shortcut(x))


def rfb(
    in_channels: int,
    out_channels: int,
    norm: str,
    *,
    stride: int = 1,
    dilations: tuple[int, ...] = (1, 3, 5, 7),
) -> RFB:
    """The block of Fig. 4(a), its 5x5 and 7x7 kernels in two steps; one branch a dilation."""
    narrow = in_channels // 8
    middle, wide = narrow * 3 // 2, narrow * 2
    # Kernels and output channels between the 1x1 and the dilated convolution; the last has the
    # stride.
    steps: dict[int, list[tuple[Size, int]]] = {
        1: [(1, wide)],
        3: [(1, narrow), (3, wide)],
        5: [(1, narrow), (3, middle), (3, wide)],
        7: [(1, narrow), ((1, 7), middle), ((7, 1), wide)],
    }
    branches = [_branch(in_channels, steps[d], wide, d, stride, norm) for d in dilations]
    return RFB(
        branches,
        _linear(len(dilations) * wide, out_channels, norm),
        _linear(in_channels, out_channels, norm, stride=stride),
    )


def rfb_s(in_channels: int, out_channels: int, norm: str) -> RFB:
    """The block of Fig. 4(b) for the finest map, its branches as in the code of RFBNet."""
    wide = in_channels // 8
    narrow, middle = wide // 2, wide * 3 // 4
    tall, flat = (3, 1), (1, 3)
    steps: list[tuple[list[tuple[Size, int]], int]] = [
        ([(1, wide)], 1),
        ([(1, wide), (tall, wide)], 3),
        ([(1, wide), (flat, wide)], 3),
        ([(1, wide), (tall, wide)], 5),
        ([(1, wide), (flat, wide)], 5),
        ([(1, narrow), (flat, middle), (tall, wide)], 7),
        ([(1, narrow), (tall, middle), (flat, wide)], 7),
    ]
    branches = [_branch(in_channels, s, wide, dilation, 1, norm) for s, dilation in steps]
    return RFB(
        branches,
        _linear(len(branches) * wide, out_channels, norm),
        _linear(in_channels, out_channels, norm),
    )


def _branch(
    in_channels: int,
    steps: list[tuple[Size, int]],
    out_channels: int,
    dilation: int,
    stride: int,
    norm: str,
) -> nn.Sequential:
    layers = []
    for i, (kernel_size, channels) in enumerate(steps):
        step_stride = stride if i == len(steps) - 1 else 1
        layers.append(
            conv_norm_relu(in_channels, channels, kernel_size, stride=step_stride, norm=norm)
        )
        in_channels = channels
    layers.append(_linear(in_channels, out_channels, norm, kernel_size=3, dilation=dilation))
    return nn.Sequential(*layers)


def _linear(in_channels: int, out_channels: int, norm: str, *, kernel_size: int = 1, **kwargs):
    """Convolution and normalisation without ReLU."""
    return conv_norm_relu(
        in_channels, out_channels, kernel_size, norm=norm, activation=None, **kwargs
    )


class RFBPyramid(Pyramid):
    """
    RFBNet's levels: the fused fine map through RFB-s; from the coarse map RFB, RFB of stride 2 and,
    with fewer channels, RFB of stride 2 for each further level.
    """

    def __init__(
        self, bottom_up: Backbone, in_features: list[str], num_levels: int = 4, norm: str = "BN"
    ) -> None:
        """
        Args:
            bottom_up: the trunk. in_features: its fine map and its coarse one, of twice the stride.
            num_levels: levels from the fine map's stride on, each of twice the stride, at least 3.
        """
        shapes = bottom_up.output_shape()
        fine, coarse = (shapes[f] for f in in_features)
        half = fine.channels // 2
        channels = [coarse.channels, 512, 512, *[256] * (num_levels - 3)]
        strides = [fine.stride * 2**i for i in range(num_levels)]
        super().__init__([512, *channels[1:]], strides)
        self.bottom_up = bottom_up
        self.in_features = list(in_features)
        self.reduce_fine = conv_norm_relu(fine.channels, half, 1, norm=norm)
        self.reduce_coarse = conv_norm_relu(coarse.channels, half, 1, norm=norm)
        self.fine = rfb_s(2 * half, 512, norm)
        blocks = [
            rfb(channels[0], channels[1], norm),
            rfb(channels[1], channels[2], norm, stride=2),
        ]
        # Where few channels come in, a branch less.
        blocks += [
            rfb(c, 256, norm, stride=2, dilations=(1, 3, 5, 7) if c > 256 else (1, 3, 7))
            for c in channels[2:-1]
        ]
        self.coarse = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Same interface as :meth:`FSSDPyramid.forward`; channels differ between levels."""
        self.check_divisible(x)
        maps = self.bottom_up(x)
        fine, coarse = (maps[f] for f in self.in_features)
        upsampled = F.interpolate(self.reduce_coarse(coarse), size=fine.shape[-2:])
        levels = [self.fine(torch.cat((self.reduce_fine(fine), upsampled), dim=1))]
        for block in self.coarse:
            coarse = block(coarse)
            levels.append(coarse)
        return self.named(levels)


@BACKBONE_REGISTRY.register()
def build_rfb_vgg_backbone(cfg, input_shape: ShapeSpec) -> RFBPyramid:
    """RFBNet's pyramid on VGG-16."""
    return RFBPyramid(
        VGG16(), cfg.MODEL.PYRAMID.IN_FEATURES, cfg.MODEL.PYRAMID.NUM_LEVELS, cfg.MODEL.PYRAMID.NORM
    )
