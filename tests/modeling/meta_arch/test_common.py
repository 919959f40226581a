import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes
from torch import distributed as dist

from mutual_guidance.assignment import Assignment, GroundTruths
from mutual_guidance.modeling.meta_arch.common import (
    box_targets,
    loss_normalizers,
    matched_boxes,
    sum_of,
)


def assignment(num_cls, num_loc, num_anchors=10):
    """One image with so many positives for each task."""
    inds = torch.arange(num_anchors)[None]
    return Assignment(
        cls_labels=torch.where(inds < num_cls, 0, 1),
        cls_gt_inds=torch.where(inds < num_cls, 0, -1),
        loc_mask=inds < num_loc,
        loc_gt_inds=torch.where(inds < num_loc, 0, -1),
    )


def test_normalizers_are_the_positives_of_each_task(storage):
    assert loss_normalizers(assignment(4, 3)).tolist() == [4.0, 3.0]
    assert loss_normalizers(assignment(0, 0)).tolist() == [1.0, 1.0]
    assert storage.latest()["num_positives/classification"][0] == 0


def test_a_weight_takes_the_place_of_the_positives_of_classification(storage):
    assert loss_normalizers(assignment(4, 3), torch.tensor(2.5)).tolist() == [2.5, 3.0]
    assert loss_normalizers(assignment(4, 3), torch.tensor(0.5)).tolist() == [1.0, 3.0]
    # The curve stays one of positives.
    assert storage.latest()["num_positives/classification"][0] == 4


def test_normalizers_count_the_batch_of_all_processes(storage, monkeypatch):
    # Another process has 2 and 5 positives. Gradients are averaged over the two, so each divides
    # by half the total: (4 + 2) / 2 and (3 + 5) / 2.
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.add_(torch.tensor([2.0, 5.0])))
    assert loss_normalizers(assignment(4, 3)).tolist() == [3.0, 4.0]
    # None anywhere: at least 1 in the whole batch.
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts)
    assert loss_normalizers(assignment(0, 0)).tolist() == [0.5, 0.5]


@pytest.fixture
def anchors_and_boxes():
    """Anchors (50, 4), and a box for each of two images' anchors."""
    corners, sizes = torch.rand(3, 50, 2) * 60, torch.rand(3, 50, 2) * 50 + 1
    boxes = torch.cat((corners, corners + sizes), dim=2)
    return boxes[0], boxes[1:]


def test_box_targets_are_detectron2s(anchors_and_boxes):
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    anchors, boxes = anchors_and_boxes
    expected = torch.stack([transform.get_deltas(anchors, x) for x in boxes])
    assert torch.equal(box_targets(transform, anchors, boxes), expected)


def test_an_anchor_without_an_object_aims_at_itself():
    gts = GroundTruths.cat(
        [torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(0, 4)],
        [torch.zeros(1).long(), torch.zeros(0).long()],
    )
    anchors = [Boxes(torch.tensor([[1.0, 1, 2, 2]])), Boxes(torch.tensor([[3.0, 3, 4, 4]]))]
    mask = torch.tensor([[True, False], [False, False]])
    labels = Assignment(mask.long(), mask.long() - 1, mask, mask.long() - 1)
    expected = [[[0, 0, 9, 9], [3, 3, 4, 4]], [[1, 1, 2, 2], [3, 3, 4, 4]]]
    assert matched_boxes(anchors, gts, labels).tolist() == expected


def test_what_is_not_selected_has_no_loss_and_no_gradient():
    losses = torch.tensor([[1.0, float("nan")], [2.0, 4.0]], requires_grad=True)
    total = sum_of(losses, torch.tensor([[True, False], [False, True]]))
    total.backward()
    assert total == 5 and losses.grad.tolist() == [[1, 0], [0, 1]]
