"""The method in loops does what the matcher does."""

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from mutual_guidance.assignment import AnchorMatcher, plain

from .scenes import STRATEGY_NAMES, scenes
from .test_matcher import EXTENT, some_anchors


def assert_same_labels(strategy, sigma, thresholds, anchors, scene):
    """Compare both implementations on one batch."""
    args = (anchors, scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    got = AnchorMatcher(strategy, sigma, thresholds)(*args)
    num_classes = scene.pred_logits.shape[-1]
    expected = plain.match_anchors(strategy, sigma, thresholds, *args, num_classes)
    for name, labels, want in zip(got._fields, got, expected, strict=True):
        assert labels.dtype == want.dtype, name
        assert torch.equal(labels, want), name


@settings(max_examples=60, deadline=None)
@given(scene=scenes(64, EXTENT), strategy=st.sampled_from(STRATEGY_NAMES))
def test_plain_equals_anchor_matcher(scene, strategy):
    assert_same_labels(strategy, 2.0, (0.4, 0.5), some_anchors(), scene)


@settings(max_examples=20, deadline=None)
@given(scene=scenes(3, EXTENT), strategy=st.sampled_from(STRATEGY_NAMES))
def test_plain_equals_anchor_matcher_with_more_objects_than_anchors(scene, strategy):
    assert_same_labels(strategy, 1.5, (0.2, 0.3), some_anchors()[:3], scene)


def test_plain_without_predictions():
    anchors = some_anchors()
    args = (anchors, [anchors[:3] + 1, anchors[:0]], [torch.tensor([0, 1, 1]), torch.tensor([])])
    got = AnchorMatcher("static", num_classes=2)(*args)
    expected = plain.match_anchors("static", 2.0, (0.4, 0.5), *args, None, None, 2)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
