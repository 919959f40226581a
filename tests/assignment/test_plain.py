"""The method in loops; test_matcher.py compares it with the matcher on random scenes."""

import torch

from mutual_guidance.assignment import AnchorMatcher, plain

from .test_matcher import some_anchors


def test_plain_of_predictions_that_are_not_finite():
    anchors = some_anchors()
    gts = [anchors[:2] + 0.5], [torch.tensor([0, 0])]
    pred, logits = anchors.clone()[None], torch.zeros(1, 64, 1)
    pred[0, ::2], logits[0, ::3] = float("nan"), float("nan")
    got = AnchorMatcher("mutual_guidance")(anchors, *gts, pred, logits)
    args = anchors, *gts, pred, logits, 1
    expected = plain.match_anchors("mutual_guidance", 2.0, (0.4, 0.5), *args)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_plain_without_predictions():
    anchors = some_anchors()
    args = (anchors, [anchors[:3] + 1, anchors[:0]], [torch.tensor([0, 1, 1]), torch.tensor([])])
    got = AnchorMatcher("static", num_classes=2)(*args)
    expected = plain.match_anchors("static", 2.0, (0.4, 0.5), *args, None, None, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
