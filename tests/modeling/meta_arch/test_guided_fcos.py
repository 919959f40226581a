import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from mutual_guidance.assignment import Assignment
from mutual_guidance.config import load_config
from mutual_guidance.modeling.meta_arch import ground_truths
from tests.conftest import REPOSITORY

from .predictions import make_dense

SIDE = 320


def build_static():
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "fcos_R_18.yaml"
    opts = ["MODEL.DEVICE", "cpu", "MODEL.MUTUAL_GUIDANCE.STRATEGY", "static"]
    return build_model(load_config(str(config), opts))


def random_instances(count):
    corners = torch.rand(count, 2) * 250
    sides = torch.rand(count, 2) ** 2 * 300 + 2
    result = Instances((SIDE, SIDE))
    result.gt_boxes = Boxes(torch.cat((corners, (corners + sides).clamp(max=SIDE)), dim=1))
    result.gt_classes = torch.randint(20, (count,))
    return result


def test_static_labels_equal_detectron2s_bit_for_bit():
    model = build_static()
    gts = [random_instances(count) for count in (0, 1, 2, 5, 10, 40, 150)]
    # Equal boxes and equal areas: the lower index has the point.
    twins = random_instances(6)
    twins.gt_boxes.tensor[3:] = twins.gt_boxes.tensor[:3]
    gts.append(twins)
    dense = make_dense(model, len(gts), SIDE)
    got = model.assign(dense, ground_truths(gts))
    labels, boxes = model.label_anchors(dense.anchors, gts)  # Detectron2's
    assert sum((x < 20).sum() for x in labels) > 200  # the comparison has substance
    for i, gt in enumerate(gts):
        positive = labels[i] < 20
        assert torch.equal(got.cls_labels[i], labels[i])
        assert torch.equal(got.loc_mask[i], positive)
        if len(gt):
            chosen = gt.gt_boxes.tensor[got.loc_gt_inds[i][positive]]
            assert torch.equal(chosen, boxes[i][positive])


def test_box_and_centerness_losses_use_the_localisation_positives(storage):
    model = build_static()
    gt = random_instances(1)
    gt.gt_boxes.tensor[:] = torch.tensor([100.0, 100, 164, 164])
    dense = make_dense(model, 1, SIDE)
    dense = dense._replace(deltas=torch.ones_like(dense.deltas))
    truth = ground_truths([gt])
    static = model.assign(dense, truth)

    # The same labels, but nothing is trained for localisation.
    none = static.loc_mask & False
    assignment = Assignment(static.cls_labels, static.cls_gt_inds, none, none.long() - 1)
    both = model.guided_losses(dense, truth, static)
    only_cls = model.guided_losses(dense, truth, assignment)
    assert both["loss_fcos_cls"] == only_cls["loss_fcos_cls"] > 0
    assert only_cls["loss_fcos_loc"] == only_cls["loss_fcos_ctr"] == 0
    # Binary cross entropy of logit 0 is ln 2 whatever the target.
    torch.testing.assert_close(both["loss_fcos_ctr"], torch.tensor(2.0).log())


def test_mixed_precision_changes_the_losses_by_its_rounding_only():
    torch.manual_seed(0)
    model = build_static().train()
    image = torch.randint(256, (3, SIDE, SIDE))
    batch = [{"image": image, "instances": random_instances(8)}]
    with EventStorage(), torch.no_grad():
        wanted = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            got = model(batch)
    torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.0, check_dtype=False)


def test_every_level_learns_its_distances_from_the_first_step():
    torch.manual_seed(0)
    model = build_static().train()
    objects = Instances((640, 640))  # one for each level
    sides = (60, 160, 320, 620)
    objects.gt_boxes = Boxes([[10, 10, 10 + side, 10 + side] for side in sides])
    objects.gt_classes = torch.zeros(len(sides), dtype=torch.int64)
    image = torch.randint(256, (3, 640, 640))
    with EventStorage():
        model([{"image": image, "instances": objects}])["loss_fcos_loc"].backward()
    for layer in model.head.bbox_pred:
        assert (layer.bias.grad != 0).all()  # of all four sides
