import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import nn

from mutual_guidance.modeling import FSSDPyramid, TopDownPyramid


class Trunk(Backbone):
    """Three maps of strides 8, 16 and 32 with 2, 3 and 4 channels."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(3, c, 1, stride=s) for c, s in ((2, 8), (3, 16), (4, 32))
        )

    def output_shape(self):
        return {f"c{i}": ShapeSpec(channels=i - 1, stride=2**i) for i in (3, 4, 5)}

    def forward(self, x):
        return {f"c{i + 3}": conv(x) for i, conv in enumerate(self.convs)}


def pyramid(num_levels=4):
    return FSSDPyramid(Trunk(), ["c3", "c4", "c5"], out_channels=8, num_levels=num_levels)


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("num_levels", [4, 5])
def test_levels(top_down, num_levels):
    model = pyramid(num_levels)
    if top_down:
        model = TopDownPyramid(model, out_channels=8)
    side = 128
    levels = model(torch.rand(2, 3, side, side))
    assert list(levels) == [f"p{i}" for i in range(3, 3 + num_levels)] == list(model.output_shape())
    for name, shape in model.output_shape().items():
        assert levels[name].shape == (2, 8, side // shape.stride, side // shape.stride)
    assert model.size_divisibility == 2 ** (2 + num_levels)


def test_every_parameter_takes_part():
    model = TopDownPyramid(pyramid(), out_channels=8)
    sum(level.square().sum() for level in model(torch.rand(2, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_top_down_path_sums_coarse_into_fine():
    model = TopDownPyramid(pyramid(), out_channels=8).eval()
    x = torch.rand(1, 3, 64, 64)
    before = model(x)
    with torch.no_grad():
        model.lateral[3].weight.mul_(3)  # of the coarsest level
    after = model(x)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_input_must_be_divisible():
    with pytest.raises(ValueError, match=r"96x64 pixels: .* multiples of 64"):
        pyramid()(torch.rand(1, 3, 96, 64))


def test_new_convolutions_start_as_pytorchs():
    # Uniform within 1 / sqrt(fan in), whose deviation is that bound / sqrt(3).
    weight = FSSDPyramid(Trunk(), ["c3", "c4", "c5"], out_channels=64).fuse.weight
    bound = (3 * 64 * 9) ** -0.5
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
