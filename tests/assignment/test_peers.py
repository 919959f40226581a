"""
The rules of other papers beside mmdetection's and Ultralytics' assigners, on the same inputs.

Both are skipped where they are not installed; benchmarks/peers.py says how to. Where the toolboxes
leave a choice to the order of a sort (equal distances or metrics) inputs without ties are used.
"""

import pytest
import torch

from benchmarks.peers import mmdet_assigners
from mutual_guidance.assignment import AnchorMatcher, GroundTruths, PointMatcher

NUM_CLASSES, SIDE = 4, 128


def scene(seed):
    """Four objects, square anchors of two levels with jitter, boxes and scores at them."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for stride, size in ((8, 24.0), (16, 56.0)):
        xy = (torch.arange(SIDE // stride) + 0.5) * stride
        centres = torch.cartesian_prod(xy, xy)
        centres += torch.rand(centres.shape, generator=generator) - 0.5
        levels.append(torch.cat((centres - size / 2, centres + size / 2), dim=1))
    anchors = torch.cat(levels)
    corners = torch.rand(4, 2, generator=generator) * 70
    sides = torch.rand(4, 2, generator=generator) * 40 + 20
    gt_boxes = torch.cat((corners, corners + sides), dim=1)
    gt_classes = torch.randint(NUM_CLASSES, (4,), generator=generator)
    noise = torch.randn(len(anchors), 4, generator=generator) * 4
    logits = torch.randn(len(anchors), NUM_CLASSES, generator=generator) * 2
    return anchors, [len(level) for level in levels], gt_boxes, gt_classes, anchors + noise, logits


def ours(strategy, anchors, sizes, gt_boxes, gt_classes, pred_boxes, logits):
    """The ground truth of each anchor, -1 for none."""
    matcher = AnchorMatcher(strategy)
    truth = GroundTruths.cat([gt_boxes], [gt_classes])
    candidates = matcher.candidates(anchors, sizes)
    return matcher.match(candidates, truth, pred_boxes[None], logits[None]).cls_gt_inds[0]


@pytest.fixture(scope="module")
def mmdet():
    """mmdetection's assigners, and its structure of inputs."""
    pytest.importorskip("mmdet", reason="mmdetection is not installed")
    return mmdet_assigners(), pytest.importorskip("mmengine.structures").InstanceData


def agreement(pairs):
    """Of the anchors that have an object by either rule, the share that have the same by both."""
    got, expected = map(torch.cat, zip(*pairs, strict=True))
    some = (got >= 0) | (expected >= 0)
    print(f"the same for {(got == expected)[some].sum()} of {some.sum()} anchors")
    return (got == expected)[some].float().mean()


@pytest.mark.parametrize("seed", range(20))
def test_atss_equals_mmdetections(mmdet, seed):
    anchors, sizes, boxes, classes, *predicted = scene(seed)
    assigners, data = mmdet
    result = assigners.ATSSAssigner(topk=9).assign(
        data(priors=anchors), sizes, data(bboxes=boxes, labels=classes)
    )
    got = ours("atss", anchors, sizes, boxes, classes, *predicted)
    assert torch.equal(got, result.gt_inds - 1)
    assert (got >= 0).any()


def test_task_aligned_and_ultralytics():
    # An anchor that several objects took goes there to the one that it overlaps most, whether that
    # one took it or not; objects narrower than 16 pixels, none here, are widened; CIoU ranks.
    tal = pytest.importorskip("ultralytics.utils.tal", reason="Ultralytics is not installed")
    assigner = tal.TaskAlignedAssigner(topk=13, num_classes=NUM_CLASSES, alpha=1.0, beta=6.0)
    assigner.iou_calculation = lambda a, b: tal.bbox_iou(a, b, xywh=False).squeeze(-1).clamp(min=0)
    pairs = []
    for seed in range(20):
        anchors, sizes, boxes, classes, pred_boxes, logits = scene(seed)
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        truth = (classes[None, :, None], boxes[None], torch.ones(1, len(boxes), 1))
        *_, found, gt_inds = assigner(logits.sigmoid()[None], pred_boxes[None], centres, *truth)
        expected = torch.where(found[0].bool(), gt_inds[0], -1)
        got = ours("task_aligned", anchors, sizes, boxes, classes, pred_boxes, logits)
        assert torch.equal(got >= 0, expected >= 0)
        pairs.append((got, expected))
    assert agreement(pairs) > 0.99


def test_task_aligned_and_mmdetections(mmdet):
    # mmdetection takes the 13 best of all anchors and then drops those outside the object, of
    # which the 13 here are never: an object has at most as many there.
    assigners, data = mmdet
    pairs = []
    for seed in range(20):
        anchors, sizes, boxes, classes, pred_boxes, logits = scene(seed)
        pred = data(priors=anchors, bboxes=pred_boxes, scores=logits.sigmoid())
        gts = data(bboxes=boxes, labels=classes)
        result = assigners.TaskAlignedAssigner(topk=13).assign(pred, gts, alpha=1, beta=6)
        got = ours("task_aligned", anchors, sizes, boxes, classes, pred_boxes, logits)
        assert ((result.gt_inds == 0) | (result.gt_inds - 1 == got)).float().mean() > 0.98
        pairs.append((got, result.gt_inds - 1))
    assert agreement(pairs) > 0.5


def test_simota_and_mmdetections(mmdet):
    assigners, data = mmdet
    pairs = []
    for seed in range(20):
        anchors, _, boxes, classes, pred_boxes, logits = scene(seed)
        points = (anchors[:, :2] + anchors[:, 2:]) / 2
        strides = torch.tensor([8.0] * 256 + [16.0] * 64)
        levels = (strides > 8).long()
        args = ([boxes], [classes], pred_boxes[None], logits[None])
        got = PointMatcher("simota")(points, strides, levels, *args).cls_gt_inds[0]
        priors = torch.cat((points, strides[:, None].expand(-1, 2)), dim=1)
        pred = data(priors=priors, bboxes=pred_boxes, scores=logits.sigmoid())
        result = assigners.SimOTAAssigner().assign(pred, data(bboxes=boxes, labels=classes))
        pairs.append((got, result.gt_inds - 1))
    assert agreement(pairs) > 0.8
