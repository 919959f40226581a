import torch

from mutual_guidance.data.anchor_fit import Objects
from mutual_guidance.figures import png_of
from mutual_guidance.visualization.dataset import draw_statistics


def test_no_anchors_are_told_of_where_there_are_none():
    boxes, sizes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 20, 9]]), torch.full((2, 2), 64.0)
    objects = Objects(boxes, sizes, torch.tensor([0, 0]), torch.tensor([2]))
    figure = draw_statistics("points", objects, None, {})
    assert not any(axes.get_legend() for axes in figure.axes)
    labels = [axes.get_xlabel() for axes in figure.axes if axes.axison]
    assert not any("anchor" in label for label in labels)
    png_of(figure)
    powers = figure.axes[1].get_xticklabels()  # as 10², not as it is written for mathematics
    assert powers and all(text.get_parse_math() for text in powers)
