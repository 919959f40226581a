import signal

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from matplotlib.figure import Figure

from mutual_guidance.visualization.images import GroundTruthImage
from mutual_guidance.visualization.paper import _draw_boxes, draw_amplification
from mutual_guidance.visualization.qualities import CandidateRow


def test_amplification():
    figure = draw_amplification([2, 3])
    assert [axes.get_title() for axes in figure.axes] == ["σ = 2", "σ = 3"]
    curves = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    # IoU 0.25, the 51st of 201: itself at score 0, and 0.25 ** ((2 - 1) / 2) = 0.5 at score 1.
    assert curves["score 0"][50] == pytest.approx((0.25, 0.25))
    assert curves["score 1"][50] == pytest.approx((0.25, 0.5))


def test_names_of_anchors_with_one_corner_stand_apart_on_narrow_images():
    gts = Instances((300, 12), gt_boxes=Boxes(torch.tensor([[1.0, 1, 10, 200]])))
    image = GroundTruthImage("a", np.zeros((300, 12, 3), np.uint8), {"instances": gts})
    labels = ("positive", "negative", "negative")
    rows = [CandidateRow([-5, -5, 20, 100], 0.5, 0.5, 0.5, 0.5, *labels)] * 2
    axes = Figure().subplots()
    previous = signal.signal(signal.SIGVTALRM, lambda *_: pytest.fail("it looks for ever"))
    signal.setitimer(signal.ITIMER_VIRTUAL, 10)
    try:
        _draw_boxes(axes, image, 0, rows)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
    assert [text.get_position() for text in axes.texts] == [(0, 0), (1, 0)]
