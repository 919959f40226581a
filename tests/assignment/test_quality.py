import pytest
import torch

from mutual_guidance.assignment import amplify, centerness, matched_pairwise_iou
from mutual_guidance.assignment.quality import side_distances


def columns(*rows):
    return torch.tensor(rows, dtype=torch.float32).t()


def test_matched_pairwise_iou():
    boxes = columns([0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10])
    others = columns([0, 0, 10, 10], [5, 5, 15, 15], [10, 0, 20, 10], [2, 2, float("nan"), 9])
    # Itself; 25 / 175; touching; not a number.
    assert matched_pairwise_iou(boxes, others).tolist() == pytest.approx([1.0, 1 / 7, 0.0, 0.0])


def test_centerness():
    box = columns(*[[0, 0, 8, 8]] * 4)
    points = columns([4, 4], [2, 4], [1, 2], [9, 4])
    # Centre; sqrt(2/6 * 4/4); sqrt(1/7 * 2/6); outside.
    expected = [1.0, (1 / 3) ** 0.5, (1 / 21) ** 0.5, 0.0]
    assert centerness(side_distances(points, box)).tolist() == pytest.approx(expected)


def test_amplify_is_equation_1():
    prior = torch.tensor([0.25, 0.25, 0.25, 0.0, 1.0])
    score = torch.tensor([0.0, 1.0, 0.5, 1.0, 0.7])
    # sigma = 2: exponents 1, 1/2, 3/4; 0 and 1 stay.
    expected = [0.25, 0.5, 0.25**0.75, 0.0, 1.0]
    assert amplify(prior, score, 2.0).tolist() == pytest.approx(expected)
    # The larger sigma, the weaker the amplification, and never below the prior (Fig. 3).
    weaker = amplify(prior, score, 3.0)
    assert (weaker <= amplify(prior, score, 2.0)).all() and (weaker >= prior).all()
