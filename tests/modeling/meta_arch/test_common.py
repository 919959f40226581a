import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import distributed as dist

from mutual_guidance.assignment import Assignment
from mutual_guidance.engine import load_config
from mutual_guidance.modeling.meta_arch.common import focal_loss, loss_normalizers, matched_boxes
from tests.conftest import REPOSITORY, make_instances


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


def test_matched_boxes():
    boxes = [torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3]]), torch.zeros(0, 4)]
    first, second = matched_boxes(boxes, torch.tensor([[1, -1, 0], [-1, -1, -1]]))
    assert first.tolist() == [[2, 2, 3, 3], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert second.tolist() == [[0, 0, 0, 0]] * 3


def test_focal_loss_leaves_out_ignored_anchors():
    logits = torch.tensor([[[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]]])
    labels = torch.tensor([[0, -1, 2]])  # a class, ignored, background of 2 classes
    # Logit 0: ln 2 * 0.5 ** 2, weighted 0.25 for the label's class and 0.75 for the others.
    unit = 0.25 * torch.tensor(2.0).log()
    expected = unit * (0.25 + 0.75 + 0.75 + 0.75)
    assert focal_loss(logits, labels, 2, 0.25, 2.0).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("detector", ["fssd_R_18", "fcos_R_18"])
def test_static_iterations_come_first_and_are_not_repeated_on_resume(detector):
    config = str(REPOSITORY / "configs" / "PascalVOC-Detection" / f"{detector}.yaml")
    opts = ["MODEL.DEVICE", "cpu", "MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", 3]
    model = build_model(load_config(config, opts))
    model.eval()
    anchors = model.anchor_generator(
        [torch.zeros(1, 1, 128 // s, 128 // s) for s in (8, 16, 32, 64)]
    )
    num_anchors = sum(len(a) for a in anchors)
    logits, deltas = torch.randn(1, num_anchors, 20) * 3, torch.randn(1, num_anchors, 4)
    gts = [make_instances([[10, 10, 60, 50], [30, 40, 110, 120]], [0, 1])]

    def labels(static_iters):
        model.static_iters = static_iters
        return model.label_anchors(anchors, gts, logits, deltas)

    guided = labels(0)
    with EventStorage(0):
        static = labels(3)
        assert torch.equal(labels(0).cls_labels, guided.cls_labels)
    assert not torch.equal(static.cls_labels, guided.cls_labels)
    # A resumed run's storage begins at the iteration to come.
    for start, expected in ((2, static), (3, guided), (100, guided)):
        with EventStorage(start):
            assert torch.equal(labels(3).cls_labels, expected.cls_labels)
    assert torch.equal(labels(3).cls_labels, guided.cls_labels)  # outside a training


@pytest.mark.parametrize("detector", ["fssd_R_18", "fcos_R_18"])
def test_number_of_positives_is_the_configs(detector):
    config = str(REPOSITORY / "configs" / "PascalVOC-Detection" / f"{detector}.yaml")
    opts = ["MODEL.DEVICE", "cpu", "MODEL.MUTUAL_GUIDANCE.NUM_POSITIVES"]
    models = [build_model(load_config(config, [*opts, name])) for name in ("static", "dynamic_k")]
    matchers = [getattr(m, "anchor_matcher", None) or m.point_matcher for m in models]
    assert [m.rule.dynamic_k for m in matchers] == [False, True]
    # A labelling by the static strategy keeps it.
    assert matchers[1].with_strategy("static").rule.dynamic_k
