"""What all pyramids have in common."""

from collections.abc import Callable

from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn
from torch.nn import functional as F

# Of the running statistics in layers that are not pre-trained.
_NORM_MOMENTUM = 0.01


class Pyramid(Backbone):
    """A backbone of levels p3, p4, ..., named after the logarithm of their stride."""

    def __init__(self, channels: list[int], strides: list[int]) -> None:
        """
        Args:
            channels, strides: of each level, the finest first.
        """
        super().__init__()
        self._shapes = {
            f"p{stride.bit_length() - 1}": ShapeSpec(channels=c, stride=stride)
            for c, stride in zip(channels, strides, strict=True)
        }

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this (Detectron2 pads to it)."""
        return max(shape.stride for shape in self._shapes.values())

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def named(self, levels: list[Tensor]) -> dict[str, Tensor]:
        """The levels by their names, the finest first."""
        return dict(zip(self._shapes, levels, strict=True))

    def check_divisible(self, x: Tensor) -> None:
        """Raise ValueError unless height and width of ``x`` fit :attr:`size_divisibility`."""
        height, width = x.shape[-2:]
        if height % self.size_divisibility or width % self.size_divisibility:
            raise ValueError(
                f"input of {height}x{width} pixels: this pyramid needs multiples of "
                f"{self.size_divisibility}; pad or resize the image (INPUT.SQUARE_SIZE)"
            )


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
    """
    A convolution that keeps the size (or divides it by the stride), normalised, then ReLU. It
    starts from PyTorch's own values, as in the authors' code; MSRA's are some four times as large.
    """
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    norm_layer = get_norm(norm, out_channels)
    if isinstance(norm_layer, nn.modules.batchnorm._BatchNorm):
        norm_layer.momentum = _NORM_MOMENTUM
    return Conv2d(
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
