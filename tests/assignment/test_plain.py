"""The method in loops; test_matcher.py compares it with the matcher on random scenes."""

import torch

from mutual_guidance.assignment import AnchorMatcher, plain

from .test_matcher import some_anchors


def test_plain_without_predictions():
    anchors = some_anchors()
    args = (anchors, [anchors[:3] + 1, anchors[:0]], [torch.tensor([0, 1, 1]), torch.tensor([])])
    got = AnchorMatcher("static", num_classes=2)(*args)
    expected = plain.match_anchors("static", 2.0, (0.4, 0.5), *args, None, None, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
