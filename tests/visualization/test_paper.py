import pytest

from mutual_guidance.visualization.paper import draw_amplification


def test_amplification():
    figure = draw_amplification([2, 3])
    assert [axes.get_title() for axes in figure.axes] == ["σ = 2", "σ = 3"]
    curves = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    # IoU 0.25, the 51st of 201: itself at score 0, and 0.25 ** ((2 - 1) / 2) = 0.5 at score 1.
    assert curves["score 0"][50] == pytest.approx((0.25, 0.25))
    assert curves["score 1"][50] == pytest.approx((0.25, 0.5))
