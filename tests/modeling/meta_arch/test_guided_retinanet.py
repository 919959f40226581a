import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, pairwise_iou

from mutual_guidance.config import load_config
from mutual_guidance.modeling.losses import balanced_l1_loss
from mutual_guidance.modeling.meta_arch import ground_truths
from tests.conftest import REPOSITORY, make_instances

from .predictions import make_dense

SIDE = 128


def build(*opts):
    """The quickstart's detector, with three classes, on the CPU."""
    config_file = str(REPOSITORY / "configs" / "Shapes" / "retinanet_R_18.yaml")
    cfg = load_config(
        config_file, ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.NUM_CLASSES", "3", *opts]
    )
    return build_model(cfg)


def batch(*gts):
    return [{"image": torch.randint(256, (3, SIDE, SIDE)).float(), "instances": gt} for gt in gts]


def random_instances(generator, count):
    corners = torch.rand(count, 2, generator=generator) * 80
    sides = torch.rand(count, 2, generator=generator) * 70 + 8
    boxes = torch.cat((corners, (corners + sides).clamp(max=SIDE)), dim=1)
    return make_instances(boxes.tolist(), torch.randint(3, (count,), generator=generator).tolist())


def is_tie(gt, anchors):
    """
    The cases in which Detectron2 labels otherwise than the contract: several anchors share the
    best IoU with a ground truth (Detectron2 guarantees all of them, the contract the first), or
    its best anchor overlaps another ground truth at least as much (Detectron2 gives it to that
    one, the contract to the one that claims it).
    """
    ious = pairwise_iou(gt.gt_boxes, anchors)
    best = ious.max(dim=1).values
    shared = (ious == best[:, None]).sum(dim=1) > 1
    rank_first = ious[:, ious.argmax(dim=1)].argmax(dim=0) != torch.arange(len(gt))
    return bool((shared | rank_first).any())


def test_static_labels_equal_detectron2s():
    model = build("MODEL.MUTUAL_GUIDANCE.STRATEGY", "static")
    all_anchors = Boxes.cat(make_dense(model).anchors)
    generator = torch.Generator().manual_seed(0)
    gts = [random_instances(generator, count) for count in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5) * 6]
    gts = [gt for gt in gts if len(gt) == 0 or not is_tie(gt, all_anchors)]
    assert sum(len(gt) for gt in gts) > 40  # the comparison has substance

    dense = make_dense(model, len(gts))
    got = model.assign(dense, ground_truths(gts))
    labels, boxes = model.label_anchors(dense.anchors, gts)  # Detectron2's
    for i, gt in enumerate(gts):
        assert torch.equal(got.cls_labels[i], labels[i])
        positive = (labels[i] >= 0) & (labels[i] < 3)
        assert torch.equal(got.loc_mask[i], positive)
        chosen = gt.gt_boxes.tensor[got.loc_gt_inds[i][positive]]
        assert torch.equal(chosen, boxes[i][positive])


def test_batch_without_objects(storage):
    losses = build()(batch(make_instances([], []), make_instances([], [])))
    assert losses["loss_box_reg"] == 0 and torch.isfinite(losses["loss_cls"])


def test_losses_by_hand(storage):
    model = build()
    dense = make_dense(model)
    num_anchors = sum(dense.level_sizes)
    gt = make_instances([[16, 16, 48, 48]], [1])
    truth = ground_truths([gt])
    assignment = model.assign(dense, truth)
    losses = model.guided_losses(dense, truth, assignment)
    # With logit 0 every class has p = 0.5: cross entropy ln 2, modulated by 0.5 ** 2, weighted by
    # 0.25 for the positives' own class and by 0.75 elsewhere.
    num_pos = (assignment.cls_labels == 1).sum()
    num_valid = num_anchors - (assignment.cls_labels == -1).sum()
    unit = torch.tensor(2.0).log() * 0.25
    expected = unit * (0.25 * num_pos + 0.75 * (3 * num_valid - num_pos)) / num_pos
    torch.testing.assert_close(losses["loss_cls"], expected)


def test_balanced_l1_by_hand(storage):
    """Of other positives than classification's; the mean of four sides, in the config's shape."""
    model = build(
        "MODEL.RETINANET.BALANCED_L1_ALPHA", "0.4", "MODEL.RETINANET.BALANCED_L1_GAMMA", "1.2",
        "MODEL.RETINANET.BALANCED_L1_BETA", "0.2",
    )  # fmt: skip
    dense = make_dense(model, scale=1.0)
    truth = ground_truths([make_instances([[16, 16, 48, 48]], [1])])
    labels = model.assign(dense, truth)
    loc_mask = torch.zeros_like(labels.loc_mask)
    loc_mask[0, [3, 40, 700]] = True
    assert loc_mask.sum() != (labels.cls_gt_inds >= 0).sum()
    labels = labels._replace(loc_mask=loc_mask, loc_gt_inds=torch.where(loc_mask, 0, -1))
    anchors = Boxes.cat(dense.anchors).tensor[loc_mask[0]]
    gt_boxes = truth.boxes_at(labels.loc_gt_inds)[loc_mask]
    targets = model.box2box_transform.get_deltas(anchors, gt_boxes)
    deltas = dense.deltas[loc_mask]
    expected = balanced_l1_loss(deltas, targets, alpha=0.4, gamma=1.2, beta=0.2).mean(dim=1).mean()
    loss = model.guided_losses(dense, truth, labels)["loss_box_reg"]
    torch.testing.assert_close(loss, expected)


def test_five_thousand_objects_in_an_image(storage):
    gts = random_instances(torch.Generator().manual_seed(0), 5000)
    losses = build()(batch(gts))
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())


@pytest.mark.parametrize("kind", ["giou", "diou", "ciou"])
def test_gradients_are_finite_where_an_unlabelled_box_has_no_height(kind, storage):
    model = build("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", kind)
    dense, gt = make_dense(model), make_instances([[8, 8, 40, 60]], [1])
    truth = ground_truths([gt])
    labels = model.assign(dense, truth)
    deltas = dense.deltas.detach().clone()
    deltas[..., 3] = torch.where(labels.loc_mask, deltas[..., 3], -1000.0)
    dense = dense._replace(deltas=deltas.requires_grad_())
    model.guided_losses(dense, truth, labels)["loss_box_reg"].backward()
    assert deltas.grad.isfinite().all() and deltas.grad[labels.loc_mask].any()
    assert not deltas.grad[~labels.loc_mask].any()
