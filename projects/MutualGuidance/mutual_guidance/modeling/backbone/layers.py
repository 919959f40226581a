"""The layer that all pyramids are made of."""

from collections.abc import Callable

import fvcore.nn.weight_init as weight_init
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn
from torch.nn import functional as F

# Of the running statistics in layers that are not pre-trained.
_NORM_MOMENTUM = 0.01


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    *,
    norm: str,
    stride: int = 1,
    dilation: int = 1,
    activation: Callable[[Tensor], Tensor] | None = F.relu,
) -> Conv2d:
    """A convolution that keeps the size (or divides it by the stride), normalised, then ReLU."""
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    norm_layer = get_norm(norm, out_channels)
    if isinstance(norm_layer, nn.modules.batchnorm._BatchNorm):
        norm_layer.momentum = _NORM_MOMENTUM
    conv = Conv2d(
        in_channels,
        out_channels,
        sides,
        stride=stride,
        padding=tuple(dilation * (side // 2) for side in sides),
        dilation=dilation,
        bias=norm_layer is None,
        norm=norm_layer,
        activation=activation,
    )
    weight_init.c2_msra_fill(conv)
    return conv
