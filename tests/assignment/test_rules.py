"""The rules of other papers: held to loops, and to what their authors write."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mutual_guidance.assignment import (
    COUNTS,
    QUALITIES,
    STRATEGIES,
    AnchorMatcher,
    GroundTruths,
    PointMatcher,
    Quality,
    Strategy,
)

from . import rules
from .scenes import random_boxes, scenes
from .test_matcher import EXTENT, fcos_points, some_anchors

RULES = ("atss", "task_aligned", "simota")
LEVELS = [30, 20, 14]  # of some_anchors()


def owners_of(name, scene, i, centres, shapes, level_sizes, strides):
    """The reference's ground truth of each candidate of image i."""
    boxes, classes = scene.gt_boxes[i].tolist(), scene.gt_classes[i].tolist()
    predicted = scene.pred_boxes[i].tolist(), scene.pred_logits[i].tolist()
    if name == "atss":
        taken, quality = rules.atss(boxes, centres, shapes, level_sizes)
    elif name == "task_aligned":
        taken, quality = rules.task_aligned(boxes, classes, centres, *predicted)
    else:
        taken, quality = rules.simota(boxes, classes, centres, *predicted, strides)
    return rules.resolve(taken, quality, len(centres))


def assert_labels(labels, scene, name, *geometry):
    num_classes = scene.pred_logits.shape[2]
    for i, classes in enumerate(scene.gt_classes):
        owners = torch.tensor(owners_of(name, scene, i, *geometry))
        assert labels.cls_gt_inds[i].tolist() == owners.tolist(), (name, i)
        expected = torch.full_like(owners, num_classes)
        expected[owners >= 0] = classes[owners[owners >= 0]]
        assert torch.equal(labels.cls_labels[i], expected)
    assert torch.equal(labels.loc_gt_inds, labels.cls_gt_inds)
    assert torch.equal(labels.loc_mask, labels.cls_gt_inds >= 0)


@settings(max_examples=60)
@given(scene=scenes(64, EXTENT), name=st.sampled_from(RULES))
def test_anchors_equal_the_loops(scene, name):
    anchors = some_anchors()
    matcher = AnchorMatcher(name)
    args = (scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    labels = matcher(anchors, *args, LEVELS)
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).tolist()
    assert_labels(labels, scene, name, centres, anchors.tolist(), LEVELS, None)


@settings(max_examples=60)
@given(scene=scenes(84, EXTENT, max_gts=8), name=st.sampled_from(RULES))
def test_points_equal_the_loops(scene, name):
    points, strides, levels = fcos_points()
    args = (scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    sizes = levels.bincount().tolist()
    labels = PointMatcher(name)(points, strides, levels, *args, level_sizes=sizes)
    squares = torch.cat((points - 4 * strides[:, None], points + 4 * strides[:, None]), dim=1)
    geometry = points.tolist(), squares.tolist(), [64, 16, 4], strides.tolist()
    assert_labels(labels, scene, name, *geometry)


def test_dynamic_k_is_for_the_papers_strategies():
    for name in RULES:
        with pytest.raises(ValueError, match=f"{name}' counts its positives itself"):
            AnchorMatcher(name, num_positives="dynamic_k")
    # Pictures and curves may still look at such a row beside them.
    guided = AnchorMatcher(num_positives="dynamic_k")
    assert guided.with_strategy("atss").strategy == STRATEGIES["atss"]


def test_another_count_leaves_the_rest_of_a_row_as_it_is():
    row = Strategy("static", "regressed", pool="nearest", owner="anchor_iou", target="aligned")
    assert row.counted_by("static") == row
    assert row.counted_by("dynamic_k") == row._replace(classification="prior", count="dynamic_k")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Strategy("regresed", "static"), "strategy 'mine': unknown quality 'regresed'; choose one"),
        (Strategy("static", "static", target="iou"), "unknown quality 'iou'"),
        (Strategy("static", "static", "twelve"), "unknown count 'twelve'; choose one of static"),
        (Strategy("static", "static", pool="all"), "unknown pool 'all'; choose one of overlapping"),
    ],
)
def test_a_row_of_unknown_names_is_refused(monkeypatch, row, message):
    monkeypatch.setitem(STRATEGIES, "mine", row)
    with pytest.raises(ValueError, match=message):
        AnchorMatcher("mine")


def test_a_count_by_an_unknown_quality_is_refused(monkeypatch):
    monkeypatch.setitem(COUNTS, "mine", COUNTS["dynamic_k"]._replace(counted=("regresed",)))
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("static", "static", "mine"))
    with pytest.raises(ValueError, match="strategy 'mine': unknown quality 'regresed'"):
        AnchorMatcher("mine")


def one_object(quality, monkeypatch):
    """Which of three anchors on an object are positive by a quality of one's own."""
    monkeypatch.setitem(QUALITIES, "mine", quality)
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("mine", "mine"))
    anchors = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    matcher = AnchorMatcher("mine", num_classes=2)
    return matcher(anchors, [anchors[:1]], [torch.tensor([1])]).cls_gt_inds[0].tolist()


@pytest.mark.parametrize("none", [0.0, -0.0, -1.0, -float("inf"), float("nan")])
def test_a_quality_of_0_or_less_or_nan_is_never_positive(monkeypatch, none):
    values = torch.tensor([none, 0.5, none])
    quality = Quality((), lambda pairs: values[pairs.inds])
    assert one_object(quality, monkeypatch) == [-1, 0, -1]


@pytest.mark.parametrize(("value", "needed"), [("iou", "pred_boxes"), ("score", "pred_logits")])
def test_a_quality_that_looks_at_what_it_does_not_need(monkeypatch, value, needed):
    quality = Quality((), lambda pairs: getattr(pairs, value))
    with pytest.raises(ValueError, match=f"looks at {needed}, which is not in the tuple `needs`"):
        one_object(quality, monkeypatch)


@pytest.mark.parametrize("name", sorted(QUALITIES))
def test_a_quality_of_an_anchor_is_at_most_what_a_guaranteed_one_counts_as(name, monkeypatch):
    values, quality = [], QUALITIES[name]
    noted = Quality(quality.needs, lambda pairs: values.append(quality.of(pairs)) or values[-1])
    monkeypatch.setitem(QUALITIES, "mine", noted)
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("mine", "mine"))
    anchors = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    logits = torch.tensor([[[-9.0, 9.0], [0.0, 0.0], [9.0, -9.0]]])
    AnchorMatcher("mine")(anchors, [anchors[:1]], [torch.tensor([1])], anchors[None], logits)
    assert 0 < torch.cat(values).max() <= 1


def test_a_quality_above_what_a_guaranteed_anchor_counts_as_is_refused(monkeypatch):
    monkeypatch.setitem(QUALITIES, "mine", Quality((), lambda pairs: pairs.prior + 1))
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("mine", "static"))
    boxes, classes = [torch.tensor([[10.0, 10, 40, 40]])], [torch.tensor([0])]
    with pytest.raises(
        ValueError, match=r"quality mine must range from 0 to 1, .*, got 1\.\d+: scale"
    ):
        AnchorMatcher("mine")(some_anchors(), boxes, classes, None, torch.zeros(1, 64, 2))
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("mine", "static", owner="mine"))
    AnchorMatcher("mine")(some_anchors(), boxes, classes, None, torch.zeros(1, 64, 2))


def test_a_quality_may_be_of_double_precision(monkeypatch):
    quality = Quality(("pred_logits",), lambda pairs: pairs.prior * pairs.score)
    monkeypatch.setitem(QUALITIES, "mine", quality)
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("mine", "static"))
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    gts = [anchors[:1]], [torch.tensor([0])]
    labels = AnchorMatcher("mine")(anchors, *gts, pred_logits=torch.tensor([[[0.0], [9.0]]]))
    assert labels.cls_labels.tolist() == [[0, 0]]


def test_a_target_may_be_of_double_precision(monkeypatch):
    of = lambda pairs: pairs.iou.double() * pairs.logit.sigmoid()  # noqa: E731
    quality = Quality(("pred_boxes", "pred_logits"), of)
    monkeypatch.setitem(QUALITIES, "mine", quality)
    monkeypatch.setitem(STRATEGIES, "mine", Strategy("static", "static", target="mine"))
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 9]])
    _, targets = labels_and_targets("mine", boxes, [9.0, 0.0, float("nan")])
    assert targets.dtype == torch.float32
    assert targets[0].tolist() == pytest.approx([0.9, 0.9 * 0.25 / 0.8, 0], rel=1e-3)


def labels_and_targets(strategy, pred_boxes, logit):
    """One object of class 1 and three anchors that are it, with boxes of their own."""
    anchors = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
    matcher = AnchorMatcher(strategy)
    truth = GroundTruths.cat([anchors[:1], anchors[:0]], [torch.tensor([1]), torch.zeros(0)])
    logits = torch.zeros(2, 3, 2)
    logits[0, :, 1] = torch.tensor(logit)
    predicted = matcher.candidates(anchors), truth, pred_boxes.repeat(2, 1, 1), logits
    labels = matcher.match(*predicted)
    return labels, matcher.score_targets(*predicted, labels)


def test_score_targets_are_the_iou_of_the_regressed_box():
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 9]])
    labels, targets = labels_and_targets("static", boxes, [0.0, 0.0, 0.0])
    assert (labels.cls_gt_inds[0] == 0).all()
    assert targets.tolist() == [pytest.approx([0.8, 0.5, 0.9]), [0, 0, 0]]


def test_score_targets_of_task_aligned_are_its_normalised_metric():
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 9]])
    _, targets = labels_and_targets("task_aligned", boxes, [9.0, 0.0, 0.0])
    # Scores 0.99988, 0.5, 0.5: metrics 0.2621, 0.0078, 0.2657. The highest becomes the IoU 0.9.
    metric = [0.8**6 / (1 + 2.718281828459045**-9), 0.5 * 0.5**6, 0.5 * 0.9**6]
    assert targets[0].tolist() == pytest.approx([0.9 * m / max(metric) for m in metric], rel=1e-5)


def test_score_targets_are_normalised_over_each_object_of_the_batch():
    places = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]])
    truth = GroundTruths.cat([places[:1], places[1:]], [torch.tensor([1]), torch.tensor([0])])
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [20, 0, 30, 6], [20, 0, 30, 7]])
    matcher = AnchorMatcher("task_aligned")
    candidates = matcher.candidates(places.repeat_interleave(2, 0))
    predicted = candidates, truth, boxes.repeat(2, 1, 1), torch.zeros(2, 4, 2)
    targets = matcher.score_targets(*predicted, matcher.match(*predicted))
    # At equal scores the best of an object becomes its IoU, the other by the sixth power of theirs.
    expected = [[0.8, 0.8 * (0.5 / 0.8) ** 6, 0, 0], [0, 0, 0.7 * (0.6 / 0.7) ** 6, 0.7]]
    assert targets.tolist() == [pytest.approx(row, rel=1e-5) for row in expected]


def test_batch_without_objects_has_no_targets():
    anchors = some_anchors()
    matcher = AnchorMatcher("task_aligned")
    truth = GroundTruths.cat([anchors[:0]], [torch.zeros(0)])
    predicted = matcher.candidates(anchors), truth, anchors[None], torch.zeros(1, 64, 2)
    labels = matcher.match(*predicted)
    assert (labels.cls_labels == 2).all()
    assert not matcher.score_targets(*predicted, labels).any()


def test_one_candidate_a_level_has_no_deviation():
    # Its IoU is the threshold: 0.5 >= 0.5 + 0.
    anchors = torch.tensor([[0.0, 0, 10, 5]])
    labels = AnchorMatcher("atss", num_classes=1)(
        anchors, [torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([0])]
    )
    assert labels.loc_mask.tolist() == [[True]]


def test_equal_candidates_have_no_deviation():
    # Nor is their mean above their IoU, whatever that is.
    anchors = torch.tensor([[0.0, 0, 10, 10]]).repeat(9, 1)
    boxes = [torch.tensor([[0, 0, 10, height]]) for height in torch.linspace(8.9, 10, 64)]
    labels = AnchorMatcher("atss", num_classes=1)(anchors, boxes, [torch.tensor([0])] * 64)
    assert labels.loc_mask.all()


def test_atss_on_points_of_boxes_about_as_large_as_the_finest_squares():
    points, strides, levels = fcos_points()
    boxes = [random_boxes(torch.Generator().manual_seed(0), 3, 4, 28, 30)]
    labels = PointMatcher("atss", num_classes=1)(
        points, strides, levels, boxes, [torch.zeros(3, dtype=torch.int64)]
    )
    assert labels.loc_mask.any()
