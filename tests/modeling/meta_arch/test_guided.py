"""What every guided detector answers."""

import inspect

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher
from mutual_guidance.config import load_config
from mutual_guidance.modeling.losses import quality_focal_loss
from mutual_guidance.modeling.meta_arch import Guided, GuidedFCOS, GuidedRetinaNet, ground_truths
from mutual_guidance.modeling.meta_arch.guided import grid_anchors
from tests.conftest import REPOSITORY, make_instances, tiny_config, tiny_model

from .predictions import make_dense

DETECTORS = ("fssd_R_18", "retinanet_R_18", "fcos_R_18")


@pytest.mark.parametrize("detector", DETECTORS)
def test_dense_predictions_are_what_inference_decodes(detector):
    model = tiny_model(tiny_config(detector, "TEST.DETECTIONS_PER_IMAGE", 40))
    model.test_nms_thresh = 1.0  # suppress nothing
    image = torch.rand(3, 64, 64) * 255
    with torch.no_grad():
        (output,) = model([{"image": image}])
        dense = model.predict_dense(model.preprocess_image([{"image": image}]).tensor)
    scores = model.scores(dense)[0]  # (R, K)
    best, where = scores.flatten().sort(descending=True, stable=True)
    detections = output["instances"]
    assert len(detections) == 40
    torch.testing.assert_close(detections.scores, best[:40])
    boxes = Boxes(dense.boxes[0, where[:40] // model.num_classes])
    boxes.clip((64, 64))
    torch.testing.assert_close(detections.pred_boxes.tensor, boxes.tensor)


@pytest.mark.parametrize("detector", DETECTORS)
def test_dense_predictions_belong_to_their_levels(detector):
    model = tiny_model(tiny_config(detector))
    dense = model.predict_dense(torch.zeros(2, 3, 64, 64))
    count = sum(dense.level_sizes)
    assert dense.logits.shape == (2, count, 3) and dense.boxes.shape == (2, count, 4)
    assert dense.logits.requires_grad and not dense.boxes.requires_grad
    assert len(model.candidates(dense.anchors)) == count
    assert (dense.centerness is None) == (model.candidate_kind == "boxes")


def test_what_a_detector_must_have_is_named():
    class Nameless(Guided, RetinaNet):
        pass

    arguments = {**RetinaNet.from_config(tiny_config()), "matcher": AnchorMatcher()}
    with pytest.raises(TypeError, match="Nameless must have the attribute candidate_kind"):
        Nameless(**arguments)


def test_a_generator_of_ones_own_makes_the_anchors():
    class Shifted(DefaultAnchorGenerator):
        def forward(self, features):
            return [Boxes(boxes.tensor + 1) for boxes in super().forward(features)]

    model = tiny_model(tiny_config())
    usual = model.predict_dense(torch.zeros(1, 3, 64, 64)).anchors
    model.anchor_generator.__class__ = Shifted
    own = model.predict_dense(torch.zeros(1, 3, 64, 64)).anchors
    for a, b in zip(own, usual, strict=True):
        assert torch.equal(a.tensor, b.tensor + 1)


def test_detectron2s_methods_keep_their_signatures():
    for detector, stock in ((GuidedRetinaNet, RetinaNet), (GuidedFCOS, FCOS)):
        for name, method in vars(stock).items():
            if inspect.isfunction(method) and name != "__init__":
                ours = getattr(detector, name)
                assert list(inspect.signature(ours).parameters) == list(
                    inspect.signature(method).parameters
                ), name


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_strategy_labels_as_a_detector_of_that_strategy(detector):
    model = tiny_model(tiny_config(detector))
    dense = make_dense(model, side=64, scale=1.0)
    truth = ground_truths([make_instances([[4, 4, 30, 40]], [1])])
    for strategy in STRATEGIES:
        got = model.assign(dense, truth, strategy)
        opts = ("MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy)
        expected = tiny_model(tiny_config(detector, *opts)).assign(dense, truth)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("detector", ["fssd_R_18", "fcos_R_18"])
def test_static_iterations_come_first_and_are_not_repeated_on_resume(detector):
    config = str(REPOSITORY / "configs" / "PascalVOC-Detection" / f"{detector}.yaml")
    opts = ["MODEL.DEVICE", "cpu", "MODEL.MUTUAL_GUIDANCE.STATIC_ITERS", 3]
    model = build_model(load_config(config, opts)).eval()
    assert model.static_iters == 3
    dense = make_dense(model, scale=3.0)
    truth = ground_truths([make_instances([[10, 10, 60, 50], [30, 40, 110, 120]], [0, 1])])

    def labels(static_iters):
        model.static_iters = static_iters
        return model.assign(dense, truth)

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
    matchers = [model.matcher for model in models]
    assert [m.strategy.count for m in matchers] == ["static", "dynamic_k"]
    # A labelling by the static strategy keeps it.
    assert matchers[1].with_strategy("static").strategy.count == "dynamic_k"


@pytest.mark.parametrize("detector", ["retinanet_R_18", "fcos_R_18"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_towards_qualities(detector, strategy, storage):
    opts = ("MODEL.MUTUAL_GUIDANCE.CLS_TARGET", "quality", "MODEL.MUTUAL_GUIDANCE.STRATEGY")
    model = tiny_model(tiny_config(detector, *opts, strategy)).train()
    gts = [make_instances([[4, 4, 30, 40], [20, 20, 60, 60]], [1, 2]), make_instances([], [])]
    losses = model([{"image": torch.rand(3, 64, 64) * 255, "instances": gt} for gt in gts])
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) and v > 0 for v in losses.values()), losses
    assert all(p.grad.isfinite().all() for p in model.head.parameters())


@pytest.mark.parametrize(
    ("strategy", "divisor"),
    [("static", "number"), ("mutual_guidance", "number"), ("task_aligned", "sum of targets")],
)
@pytest.mark.parametrize(
    ("detector", "name"), [("retinanet_R_18", "loss_cls"), ("fcos_R_18", "loss_fcos_cls")]
)
def test_the_quality_focal_loss_is_divided_as_by_its_authors(
    detector, name, strategy, divisor, storage
):
    section = "FCOS" if detector.startswith("fcos") else "RETINANET"
    opts = (f"MODEL.{section}.FOCAL_LOSS_GAMMA", 1.3, "MODEL.MUTUAL_GUIDANCE.CLS_TARGET", "quality")
    opts += ("MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy)
    model = tiny_model(tiny_config(detector, *opts)).train()
    dense = make_dense(model, 2, scale=3.0)
    gts = [make_instances([[4, 4, 30, 40], [20, 20, 60, 60]], [1, 2]), make_instances([], [])]
    truth = ground_truths(gts)
    labels = model.assign(dense, truth)
    predicted = (model.candidates(dense.anchors), truth, dense.boxes, dense.logits)
    targets = model.matcher.score_targets(*predicted, labels)
    total = quality_focal_loss(dense.logits, labels.cls_labels, targets, 1.3)
    number = targets.sum() if divisor == "sum of targets" else (labels.cls_gt_inds >= 0).sum()
    assert number > 1
    loss = model.guided_losses(dense, truth, labels)[name]
    torch.testing.assert_close(loss, total / number)


@pytest.mark.parametrize(
    ("detector", "kind"),
    [("fcos_R_18", None), *(("retinanet_R_18", k) for k in ("smooth_l1", "giou", "diou", "ciou"))],
)
def test_losses_of_static_labels_are_detectron2s(detector, kind, storage):
    """But for the divisor, a moving average there."""
    section = "RETINANET" if kind else "FCOS"
    opts = [f"MODEL.{section}.FOCAL_LOSS_ALPHA", 0.4, f"MODEL.{section}.FOCAL_LOSS_GAMMA", 1.3]
    if kind:
        opts += [
            "MODEL.RETINANET.SMOOTH_L1_LOSS_BETA",
            0.3,
            f"MODEL.{section}.BBOX_REG_LOSS_TYPE",
            kind,
        ]
    model = tiny_model(tiny_config(detector, "MODEL.MUTUAL_GUIDANCE.STRATEGY", "static", *opts))
    dense = make_dense(model, 2, 64, scale=1.0)
    gts = [
        make_instances([[4, 4, 30, 40], [20, 20, 60, 60]], [1, 2]),
        make_instances([[1, 2, 50, 61]], [0]),
    ]
    truth = ground_truths(gts)
    assignment = model.assign(dense, truth)
    labels, boxes = model.label_anchors(dense.anchors, gts)
    assert torch.equal(torch.stack(list(labels)), assignment.cls_labels)
    predicted = [dense.anchors, [dense.logits], labels, [dense.deltas], boxes]
    stock = model.losses(*predicted, *([] if kind else [[dense.centerness]]))
    divided = model.loss_normalizer / assignment.loc_mask.sum()
    for name, loss in model.guided_losses(dense, truth, assignment).items():
        torch.testing.assert_close(loss, stock[name] * divided, rtol=1e-4, atol=0, msg=name)


@pytest.mark.parametrize("detector", DETECTORS)
def test_inference_is_detectron2s_with_the_keys_of_the_config(detector):
    section = "FCOS" if detector.startswith("fcos") else "RETINANET"
    keys = {
        "SCORE_THRESH_TEST": 0.03, "NMS_THRESH_TEST": 0.7, "TOPK_CANDIDATES_TEST": 77,
        "FOCAL_LOSS_ALPHA": 0.4, "FOCAL_LOSS_GAMMA": 1.3,
    }  # fmt: skip
    opts = [part for key, value in keys.items() for part in (f"MODEL.{section}.{key}", value)]
    model = tiny_model(tiny_config(detector, *opts, "TEST.DETECTIONS_PER_IMAGE", 55))
    stock = FCOS if section == "FCOS" else RetinaNet
    assert type(model).forward_inference is stock.forward_inference
    names = ("test_score_thresh", "test_nms_thresh", "test_topk_candidates", "focal_loss_alpha",
             "focal_loss_gamma")  # fmt: skip
    assert [getattr(model, name) for name in names] == list(keys.values())
    assert model.max_detections_per_image == 55


@pytest.mark.parametrize("head", ["per_level", "shared"])
@pytest.mark.parametrize("detector", ["retinanet_R_18", "fcos_R_18"])
def test_the_head_starts_with_the_keys_of_the_config(detector, head):
    section = "FCOS" if detector.startswith("fcos") else "RETINANET"
    opts = [f"MODEL.{section}.PRIOR_PROB", 0.2, f"MODEL.{section}.NUM_CONVS", 2]
    opts += ["MODEL.MUTUAL_GUIDANCE.HEAD", head, "MODEL.MUTUAL_GUIDANCE.MEMORY_BUDGET", 12345]
    model = build_model(tiny_config(detector, *opts))
    levels = model.head.cls_score if head == "per_level" else [model.head.cls_score]
    for level in levels:
        bias = level.bias.sigmoid()
        torch.testing.assert_close(bias, torch.full_like(bias, 0.2))
    if head == "shared":
        assert sum(isinstance(x, torch.nn.Conv2d) for x in model.head.cls_subnet) == 2
    assert model.matcher.memory_budget == 12345


def test_static_iterations_aim_as_the_static_strategy_does(storage):
    """Their positives at the IoU, divided by their number, whatever follows."""
    opts = ("MODEL.MUTUAL_GUIDANCE.CLS_TARGET", "quality", "MODEL.MUTUAL_GUIDANCE.STRATEGY")
    static, later, starting = (
        tiny_model(tiny_config("retinanet_R_18", *opts, name))
        for name in ("static", "task_aligned", "task_aligned")
    )
    starting.static_iters = 1
    dense = make_dense(static, 2, scale=3.0)
    truth = ground_truths([make_instances([[4, 4, 30, 40]], [1]), make_instances([], [])])
    losses = [
        model.guided_losses(dense, truth, model.assign(dense, truth))["loss_cls"]
        for model in (starting, static, later)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("target", "gamma", "allowed"),
    [("label", -0.5, "0 or more"), ("quality", -1.0, "0 or at"), ("quality", 0.5, "0 or at least")],
)
def test_a_gamma_without_a_gradient_is_refused(target, gamma, allowed):
    opts = ("MODEL.MUTUAL_GUIDANCE.CLS_TARGET", target, "MODEL.FCOS.FOCAL_LOSS_GAMMA", gamma)
    with pytest.raises(ValueError, match=f"GAMMA must be {allowed}.*'{target}', got {gamma}"):
        build_model(tiny_config("fcos_R_18", *opts))


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match="unknown cls_target 'labels'; choose one of label, qual"):
        build_model(tiny_config("fcos_R_18", "MODEL.MUTUAL_GUIDANCE.CLS_TARGET", "labels"))


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_anchors_are_detectron2s_bit_for_bit(offset):
    generator = DefaultAnchorGenerator(
        sizes=[[24, 33.94], [48, 67.88]], aspect_ratios=[[1.0, 0.5]], strides=[8, 16], offset=offset
    )
    features = [torch.zeros(1, 1, 5, 9), torch.zeros(1, 1, 3, 1)]
    for got, expected in zip(grid_anchors(generator, features), generator(features), strict=True):
        assert torch.equal(got.tensor, expected.tensor)
