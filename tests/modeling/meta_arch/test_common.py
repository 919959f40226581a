import pytest
import torch
from torch import distributed as dist

from mutual_guidance.assignment import Assignment
from mutual_guidance.modeling.meta_arch.common import focal_loss, loss_normalizers


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


def test_normalizers_count_the_batch_of_all_processes(storage, monkeypatch):
    # Another process has 2 and 5 positives. Gradients are averaged over the two, so each divides
    # by half the total: (4 + 2) / 2 and (3 + 5) / 2.
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.add_(torch.tensor([2.0, 5.0])))
    assert loss_normalizers(assignment(4, 3)).tolist() == [3.0, 4.0]
    # None anywhere: at least 1 in the whole batch.
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts)
    assert loss_normalizers(assignment(0, 0)).tolist() == [0.5, 0.5]


def test_focal_loss_leaves_out_ignored_anchors():
    logits = torch.tensor([[[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]]])
    labels = torch.tensor([[0, -1, 2]])  # a class, ignored, background of 2 classes
    # Logit 0: ln 2 * 0.5 ** 2, weighted 0.25 for the label's class and 0.75 for the others.
    unit = 0.25 * torch.tensor(2.0).log()
    expected = unit * (0.25 + 0.75 + 0.75 + 0.75)
    assert focal_loss(logits, labels, 2, 0.25, 2.0).item() == pytest.approx(expected.item())
