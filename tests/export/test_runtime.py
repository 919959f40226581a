import math

import pytest
import torch

from mutual_guidance.export import Parity, compare_outputs


def detections(boxes, scores, classes):
    """Of one image."""
    return (
        torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4),
        torch.tensor([scores], dtype=torch.float32),
        torch.tensor([classes], dtype=torch.int64),
    )


BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]
NOTHING = [0, 0, 0, 0]


def test_boxes_and_scores_of_all_anchors():
    boxes, scores = torch.zeros(1, 3, 4), torch.zeros(1, 3, 2)
    other_boxes, other_scores = boxes.clone(), scores.clone()
    other_boxes[0, 1, 2], other_scores[0, 2, 1] = -0.25, 0.5
    assert compare_outputs((boxes, scores), (other_boxes, other_scores)) == Parity(0.25, 0.5, 0)


def test_detections_may_change_places():
    one = detections([BOX, FAR, NOTHING], [0.5, 0.5, 0], [1, 0, -1])
    other = detections([FAR, [0, 0, 10, 10.25], NOTHING], [0.5, 0.5005, 0], [0, 1, -1])
    parity = compare_outputs(one, other)
    assert parity == pytest.approx((0.25, 0.0005, 0), abs=1e-6) and parity.is_close()


@pytest.mark.parametrize(
    "other",
    [
        detections([BOX, NOTHING], [0.5, 0], [1, -1]),  # one is missing
        detections([BOX, FAR], [0.5, 0.4], [1, 1]),  # of another class
        detections([BOX, [50, 50, 61, 60]], [0.5, 0.4], [1, 0]),  # a pixel larger
        detections([BOX, FAR], [0.5, 0.402], [1, 0]),  # of another score
    ],
)
def test_detections_without_a_counterpart(other):
    one = detections([BOX, FAR], [0.5, 0.4], [1, 0])
    for parity in (compare_outputs(one, other), compare_outputs(other, one)):
        assert parity == Parity(0, 0, 0.5) and not parity.is_close()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_not_close(value):
    whole, torn = (torch.zeros(1, 3, 4), torch.zeros(1, 3, 2)), torch.zeros(1, 3, 4)
    torn[0, 1, 2] = value
    one, other = detections([BOX], [0.5], [1]), detections([[0, value, 10, 10]], [0.5], [1])
    for outputs, expected in [((torn, whole[1]), whole), (other, one), (other, other)]:
        for parity in (compare_outputs(outputs, expected), compare_outputs(expected, outputs)):
            assert not parity.is_close()
            assert not (Parity() | parity).is_close() and not (parity | Parity()).is_close()


def test_images_without_detections():
    nothing = detections([NOTHING], [0], [-1])
    assert compare_outputs(nothing, nothing) == Parity(0, 0, 0)
    assert compare_outputs(nothing, detections([BOX], [0.5], [1])).unmatched == 1


def test_the_worse_of_two():
    assert Parity(0.1, 0.2, 0) | Parity(0.3, 0.1, 0.5) == Parity(0.3, 0.2, 0.5)
    assert Parity(0.5, 1e-3, 0.01).is_close()
    assert not Parity(0.51).is_close() and not Parity(score=2e-3).is_close()
