"""The layer that all pyramids are made of."""

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, get_norm
from torch import nn
from torch.nn import functional as F

# Of the running statistics in layers that are not pre-trained.
_NORM_MOMENTUM = 0.01


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    norm: str = "BN",
) -> Conv2d:
    """A convolution that keeps the size (or divides it by the stride), normalised, then ReLU."""
    norm_layer = get_norm(norm, out_channels)
    if isinstance(norm_layer, nn.modules.batchnorm._BatchNorm):
        norm_layer.momentum = _NORM_MOMENTUM
    conv = Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=norm_layer is None,
        norm=norm_layer,
        activation=F.relu,
    )
    weight_init.c2_msra_fill(conv)
    return conv
