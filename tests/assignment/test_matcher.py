import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher, PointMatcher, plain
from mutual_guidance.assignment.pairs import _BYTES_PER_CELL, PairFinder

from . import reference
from .scenes import STRATEGY_NAMES, random_boxes, scenes

EXTENT = 32


def some_anchors():
    """60 random boxes in a 32 px image, and four of them again."""
    generator = torch.Generator().manual_seed(7)
    boxes = random_boxes(generator, 60, EXTENT, 4, 20)
    return torch.cat((boxes, boxes[:4]))


def fcos_points(strides=(4, 8, 16), extent=EXTENT):
    """Points (R, 2), strides (R,) and levels (R,) of a small pyramid."""
    points, sizes, levels = [], [], []
    for level, stride in enumerate(strides):
        centres = torch.arange(extent // stride) * stride + stride / 2
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        points.append(torch.stack((x.reshape(-1), y.reshape(-1)), dim=1))
        sizes.append(torch.full((x.numel(),), float(stride)))
        levels.append(torch.full((x.numel(),), level))
    return torch.cat(points), torch.cat(sizes), torch.cat(levels)


def assert_equals(assignment, expected):
    """Compare with the reference's four lists an image."""
    for i, lists in enumerate(expected):
        for name, got, want in zip(assignment._fields, assignment, lists, strict=True):
            assert got[i].tolist() == want, (name, i)


def assert_plain_gives(assignment, strategy, sigma, thresholds, anchors, scene):
    """Compare with the method in loops."""
    args = (scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    num_classes = scene.pred_logits.shape[-1]
    expected = plain.match_anchors(strategy, sigma, thresholds, anchors, *args, num_classes)
    for name, got, want in zip(assignment._fields, assignment, expected, strict=True):
        assert got.dtype == want.dtype and torch.equal(got, want), name


def expected_of(scene, match):
    """The reference image by image."""
    return [
        match(b.tolist(), c.tolist(), p.tolist(), s.tolist(), s.shape[-1])
        for b, c, p, s in zip(
            scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits, strict=True
        )
    ]


@settings(max_examples=60)
@given(
    scene=scenes(64, EXTENT),
    strategy=st.sampled_from(STRATEGY_NAMES),
    num_positives=st.sampled_from(("static", "dynamic_k")),
)
def test_anchor_matcher_equals_reference(scene, strategy, num_positives):
    anchors = some_anchors()
    matcher = AnchorMatcher(strategy, 2.0, iou_thresholds=(0.4, 0.5), num_positives=num_positives)
    got = matcher(anchors, scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    args = (strategy, 2.0, (0.4, 0.5), num_positives == "dynamic_k", anchors.tolist())
    assert_equals(got, expected_of(scene, lambda *image: reference.match_anchors(*args, *image)))
    if num_positives == "static":
        assert_plain_gives(got, strategy, 2.0, (0.4, 0.5), anchors, scene)


@settings(max_examples=20)
@given(scene=scenes(3, EXTENT), strategy=st.sampled_from(STRATEGY_NAMES))
def test_more_objects_than_anchors(scene, strategy):
    anchors = some_anchors()[:3]
    got = AnchorMatcher(strategy=strategy, sigma=1.5, iou_thresholds=(0.2, 0.3))(
        anchors, scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits
    )
    args = (strategy, 1.5, (0.2, 0.3), False, anchors.tolist())
    assert_equals(got, expected_of(scene, lambda *image: reference.match_anchors(*args, *image)))
    assert_plain_gives(got, strategy, 1.5, (0.2, 0.3), anchors, scene)


@settings(max_examples=60)
@given(
    scene=scenes(84, EXTENT, max_gts=8),
    strategy=st.sampled_from(STRATEGY_NAMES),
    num_positives=st.sampled_from(("static", "dynamic_k")),
    radius=st.sampled_from((0.5, 1.5, 3.0)),
)
def test_point_matcher_equals_reference(scene, strategy, num_positives, radius):
    points, strides, levels = fcos_points()
    matcher = PointMatcher(
        strategy, 2.0, center_sampling_radius=radius, num_positives=num_positives
    )
    got = matcher(
        points, strides, levels,
        scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits,
    )  # fmt: skip
    dynamic = num_positives == "dynamic_k"
    args = (strategy, 2.0, radius, dynamic, points.tolist(), strides.tolist(), levels.tolist())
    assert_equals(got, expected_of(scene, lambda *image: reference.match_points(*args, *image)))


@settings(max_examples=20)
@given(scene=scenes(84, EXTENT), names=st.tuples(*[st.sampled_from(STRATEGY_NAMES)] * 2))
def test_with_strategy_equals_a_matcher_of_that_strategy(scene, names):
    old, new = names
    args = (scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    candidates = random_boxes(torch.Generator().manual_seed(7), 84, EXTENT, 4, 20)
    for kind, inputs, rule in (
        (AnchorMatcher, (candidates,), {"iou_thresholds": (0.2, 0.6)}),
        (PointMatcher, fcos_points(), {"center_sampling_radius": 1.0}),
    ):
        matcher = kind(old, sigma=1.2, **rule)
        other = matcher.with_strategy(new)
        expected = kind(new, sigma=1.2, **rule)
        for a, b in zip(other(*inputs, *args), expected(*inputs, *args), strict=True):
            assert torch.equal(a, b)
        assert matcher.strategy == kind(old, sigma=1.2, **rule).strategy  # stays as it was
    with pytest.raises(ValueError, match="unknown strategy 'other'"):
        matcher.with_strategy("other")


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=10)
@given(scene=scenes(64, EXTENT), num_positives=st.sampled_from(("static", "dynamic_k")))
def test_chunked_equals_unchunked_bit_for_bit(strategy, scene, num_positives):
    args = (scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    numbers = {"num_positives": num_positives} if strategy in STRATEGY_NAMES else {}
    whole = AnchorMatcher(strategy, **numbers)(some_anchors(), *args)
    row_by_row = AnchorMatcher(strategy, memory_budget=1, **numbers)(some_anchors(), *args)
    for a, b in zip(whole, row_by_row, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("rows", "sizes"), [(1, {1}), (2, {1, 2}), (100, {7})])
def test_chunks_are_as_large_as_the_budget(rows, sizes, monkeypatch):
    chunks, pairs_of = set(), PairFinder._pairs

    def noted(finder, rows, *args):
        chunks.add(rows.stop - rows.start)
        return pairs_of(finder, rows, *args)

    monkeypatch.setattr(PairFinder, "_pairs", noted)
    anchors = some_anchors()
    boxes = random_boxes(torch.Generator().manual_seed(0), 7, EXTENT, 4, 16)
    budget = rows * len(anchors) * _BYTES_PER_CELL
    matcher = AnchorMatcher("static", num_classes=1, memory_budget=budget)
    matcher(anchors, [boxes], [torch.zeros(7, dtype=torch.int64)])
    assert chunks == sizes


def test_hand_computed_example():
    # IoU of the gt (0, 0, 10, 10) with the anchors:
    #   0: itself                      -> 1
    #   1: (0, 0, 10, 6): 60 / 100     -> 0.6
    #   2: (0, 0, 9, 5):  45 / 100     -> 0.45
    #   3: (0, 0, 5, 5):  25 / 100     -> 0.25
    #   4: elsewhere                   -> 0
    # so N_p = 2 and N_i = 1.
    anchors = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 9, 5], [0, 0, 5, 5], [20, 20, 30, 30]]
    ).float()
    gt_boxes, gt_classes = [anchors[:1]], [torch.tensor([1])]
    static = AnchorMatcher("static", num_classes=3)(anchors, gt_boxes, gt_classes)
    assert static.cls_labels.tolist() == [[1, 1, -1, 3, 3]]
    assert static.cls_gt_inds.tolist() == [[0, 0, -1, -1, -1]]
    assert static.loc_mask.tolist() == [[True, True, False, False, False]]

    # Regressed boxes: the far anchor fits best (IoU 1), then anchor 3 (0.8), 2 (0.7), 1 and 0.
    pred = torch.tensor(
        [[0, 0, 10, 2], [0, 0, 10, 3], [0, 0, 10, 7], [0, 0, 10, 8], [0, 0, 10, 10]]
    ).float()[None]
    # p of class 1: 0.5 everywhere, but nearly 1 on anchor 2. With sigma = 2 its quality becomes
    # 0.45 ** 0.5 = 0.67, while anchor 1 has 0.6 ** 0.75 = 0.68.
    logits = torch.zeros(1, 5, 3)
    logits[0, 2, 1] = 20.0
    guided = AnchorMatcher("mutual_guidance")(anchors, gt_boxes, gt_classes, pred, logits)
    assert guided.cls_labels.tolist() == [[3, 3, -1, 1, 1]]
    assert guided.loc_mask.tolist() == [[True, True, False, False, False]]
    # With p = 0 on anchor 1 its quality stays 0.6, and anchor 2 is second.
    logits[0, 1, 1] = -20.0
    guided = AnchorMatcher("mutual_guidance")(anchors, gt_boxes, gt_classes, pred, logits)
    assert guided.loc_mask.tolist() == [[True, False, True, False, False]]


def test_a_guided_task_has_a_positive_for_an_object_that_lost_its_anchor():
    # Two objects share their best anchor, (0, 0, 10, 10): object 0 with IoU 1 wins it, object 1
    # with 0.8 loses it, and overlaps no other anchor.
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 8, 10, 10], [20, 20, 30, 30]])
    args = (anchors, [torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8]])], [torch.tensor([0, 1])])
    static = AnchorMatcher("static", num_classes=2)(*args)
    assert static.cls_labels.tolist() == [[0, 2, 2]]
    # Now anchor 2 regresses to object 1, and anchor 1 to 0.2 of object 0. Classification guides.
    pred = torch.tensor([[[0.0, 0, 10, 10], [0, 8, 10, 10], [0, 0, 10, 8]]])
    got = AnchorMatcher("localize_to_classify", num_classes=2)(*args, pred)
    assert got.cls_labels.tolist() == [[0, 2, 1]]
    assert got.loc_gt_inds.tolist() == static.loc_gt_inds.tolist() == [[0, -1, -1]]
    # Any quality above 0 is enough: 20 / 160 of object 1, against 20 / 180 of object 0.
    pred[0, 2] = torch.tensor([0.0, -8, 10, 2])
    got = AnchorMatcher("localize_to_classify", num_classes=2)(*args, pred)
    assert got.cls_labels.tolist() == [[0, 2, 1]]
    # Where localisation guides, object 1 has no other anchor whose amplified prior is above 0.
    logits = torch.zeros(1, 3, 2)
    got = AnchorMatcher("classify_to_localize")(*args, None, logits)
    assert got.loc_gt_inds.tolist() == [[0, -1, -1]]
    assert got.cls_labels.tolist() == static.cls_labels.tolist()


@settings(max_examples=30)
@given(scene=scenes(84, EXTENT, max_gts=8))
def test_points_of_a_task_that_is_not_guided_are_detectron2s(scene):
    args = (*fcos_points(), scene.gt_boxes, scene.gt_classes, scene.pred_boxes, scene.pred_logits)
    static = PointMatcher("static")(*args)
    cls_guided = PointMatcher("localize_to_classify")(*args)
    loc_guided = PointMatcher("classify_to_localize")(*args)
    both = PointMatcher("mutual_guidance")(*args)
    assert torch.equal(cls_guided.loc_gt_inds, static.loc_gt_inds)
    assert torch.equal(loc_guided.cls_labels, static.cls_labels)
    assert torch.equal(cls_guided.cls_labels, both.cls_labels)
    assert torch.equal(loc_guided.loc_gt_inds, both.loc_gt_inds)


def test_dynamic_k_by_hand():
    # The anchors of test_hand_computed_example: qualities 1, 0.6, 0.45, 0.25 and 0. Their sum is
    # 2.3, so that two are positive for both tasks; one is ignored as there.
    anchors = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 9, 5], [0, 0, 5, 5], [20, 20, 30, 30]]
    ).float()
    gt_boxes, gt_classes = [anchors[:1]], [torch.tensor([1])]
    matcher = AnchorMatcher("localize_to_classify", num_classes=3, num_positives="dynamic_k")
    pred = anchors[None].clone()
    got = matcher(anchors, gt_boxes, gt_classes, pred)
    assert got.cls_labels.tolist() == [[1, 1, -1, 3, 3]]
    assert got.loc_gt_inds.tolist() == [[0, 0, -1, -1, -1]]
    # Regressed boxes of IoU 1, 1, 0.9, 0.25 and 0 sum to 3.15: three classify, two localise still.
    pred[0, 1], pred[0, 2, 2:] = anchors[0], torch.tensor([10.0, 9.0])
    got = matcher(anchors, gt_boxes, gt_classes, pred)
    assert got.cls_labels.tolist() == [[1, 1, 1, -1, 3]]
    assert got.loc_mask.tolist() == [[True, True, False, False, False]]


def test_dynamic_k_sums_fifteen_and_takes_at_least_one():
    # 20 anchors of IoU 0.9 each, one of which the guarantee makes 1: 1 + 14 * 0.9 = 13.6.
    anchors = torch.tensor([0.0, 0, 10, 9]).expand(20, 4)
    gt_classes = [torch.tensor([0])]
    matcher = AnchorMatcher("static", num_classes=1, num_positives="dynamic_k")
    got = matcher(anchors, [torch.tensor([[0.0, 0, 10, 10]])], gt_classes)
    assert got.loc_mask.sum() == (got.cls_labels == 0).sum() == 13
    # Points of FCOS are not guaranteed: 1 point of centerness 1/3 is still a positive.
    points, ones = torch.tensor([[3.0, 2.0]]), torch.ones(1)
    args = (points, ones, ones.long(), [torch.tensor([[0.0, 0, 12, 4]])], gt_classes)
    got = PointMatcher("static", num_classes=1, num_positives="dynamic_k")(*args)
    assert got.loc_mask.tolist() == [[True]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_half_precision_equals_its_cast(dtype, strategy):
    generator = torch.Generator().manual_seed(3)
    anchors = some_anchors()
    gt_boxes = [random_boxes(generator, 5, EXTENT, 4, 16) for _ in range(2)]
    gt_classes = [torch.randint(4, (5,), generator=generator) for _ in range(2)]
    pred = (torch.rand(2, 64, 4, generator=generator) * 16).cumsum(2).to(dtype)
    logits = torch.randn(2, 64, 4, generator=generator).to(dtype)
    matcher = AnchorMatcher(strategy)
    half = matcher(anchors.to(dtype), [b.to(dtype) for b in gt_boxes], gt_classes, pred, logits)
    full = matcher(anchors, gt_boxes, gt_classes, pred.float(), logits.float())
    for a, b in zip(half, full, strict=True):
        assert torch.equal(a, b)


def test_predictions_that_are_not_finite():
    anchors = some_anchors()
    gt_boxes, gt_classes = [anchors[:2] + 0.5], [torch.tensor([0, 0])]
    pred = anchors.clone()[None]
    pred[0, 10:] = float("nan")
    logits = torch.full((1, 64, 1), float("nan"))
    got = AnchorMatcher("mutual_guidance")(anchors, gt_boxes, gt_classes, pred, logits)
    assert (got.cls_labels[0, 10:] == 1).all()  # such a box is never positive
    static = AnchorMatcher("static", num_classes=1)(anchors, gt_boxes, gt_classes)
    assert torch.equal(got.loc_mask, static.loc_mask)  # such a score amplifies nothing


def test_number_of_positives_is_the_static_rules():
    generator = torch.Generator().manual_seed(5)
    anchors = some_anchors()
    gt_boxes = [random_boxes(generator, 4, EXTENT, 6, 20)]
    gt_classes = [torch.zeros(4, dtype=torch.int64)]
    # All boxes fit all ground truths a little, so that no quality is 0.
    pred = torch.tensor([0.0, 0, 60, 60]).expand(1, 64, 4) + torch.rand(
        1, 64, 4, generator=generator
    )
    logits = torch.randn(1, 64, 1, generator=generator)
    static = AnchorMatcher("static", num_classes=1)(anchors, gt_boxes, gt_classes)
    guided = AnchorMatcher("mutual_guidance")(anchors, gt_boxes, gt_classes, pred, logits)
    assert guided.loc_mask.sum() == static.loc_mask.sum() == (static.cls_labels == 0).sum()
    # Classification may fall short only where a ground truth owns fewer candidates than N_p.
    assert (guided.cls_labels == 0).sum() <= static.loc_mask.sum()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"strategy": "mutual"}, "unknown strategy 'mutual'; choose one of static"),
        ({"sigma": 1.0}, "sigma must be above 1"),
        ({"num_positives": "dynamic"}, "unknown num_positives 'dynamic'; choose one of static"),
        ({"iou_thresholds": (0.5, 0.4)}, "must ascend"),
        ({"iou_thresholds": (0.0, 0.5)}, "must ascend"),
        ({"iou_thresholds": (0.5,)}, "must be two numbers"),
        ({"sigma": float("inf")}, "sigma must be above 1 and finite"),
    ],
)
def test_refuses_bad_parameters(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AnchorMatcher(**kwargs)


def call(gt_boxes, gt_classes, pred_boxes=None, pred_logits=None, **kwargs):
    return AnchorMatcher(**kwargs)(some_anchors(), gt_boxes, gt_classes, pred_boxes, pred_logits)


def test_refuses_degenerate_boxes_and_names_them():
    boxes = [torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([[0.0, 0, 4, 4], [5, 5, 5, 9]])]
    classes = [torch.tensor([0]), torch.tensor([0, 0])]
    with pytest.raises(ValueError, match="ground truth 1 of image 1 .* positive width"):
        call(boxes, classes, strategy="static", num_classes=1)


def test_refuses_classes_out_of_range():
    boxes, classes = [torch.tensor([[0.0, 0, 4, 4]])], [torch.tensor([7])]
    with pytest.raises(ValueError, match=r"ground truth 0 of image 0 .* in \[0, 7\)"):
        call(boxes, classes, strategy="static", num_classes=7)


def test_refuses_what_does_not_fit_together():
    boxes, classes = [torch.tensor([[0.0, 0, 4, 4]])], [torch.tensor([0])]
    with pytest.raises(ValueError, match="at least one image"):
        call([], [], strategy="static", num_classes=1)
    with pytest.raises(ValueError, match="image 0: boxes of shape"):
        call(boxes, [torch.tensor([0, 1])], strategy="static", num_classes=1)
    with pytest.raises(ValueError, match="image 0: boxes and classes must be tensors"):
        call([boxes[0].numpy()], classes, strategy="static", num_classes=1)
    elsewhere = torch.zeros(1, 64, 4, device="meta")
    with pytest.raises(ValueError, match="pred_boxes is on meta, the ground truths are on cpu"):
        call(boxes, classes, elsewhere, strategy="localize_to_classify", num_classes=1)
    with pytest.raises(ValueError, match="needs pred_boxes"):
        call(boxes, classes, num_classes=1)
    with pytest.raises(ValueError, match="needs pred_logits"):
        call(boxes, classes, strategy="classify_to_localize", num_classes=1)
    with pytest.raises(ValueError, match="num_classes must be given"):
        call(boxes, classes, strategy="static")
    with pytest.raises(ValueError, match=r"pred_boxes must begin with \(N, R\)"):
        call(boxes, classes, torch.zeros(2, 64, 4), torch.zeros(1, 64, 1))
    with pytest.raises(ValueError, match=r"be \(N, R, 2\), .* without background, .* \(1, 64, 3\)"):
        call(boxes, classes, torch.zeros(1, 64, 4), torch.zeros(1, 64, 3), num_classes=2)
    with pytest.raises(ValueError, match=r"level_sizes must be 64 in sum, got \[32, 16\]"):
        AnchorMatcher("atss", num_classes=1)(some_anchors(), boxes, classes, level_sizes=[32, 16])


def test_needs_no_predictions_that_no_task_ranks_by():
    boxes, classes = [torch.tensor([[0.0, 0, 8, 8]])], [torch.tensor([0])]
    call(boxes, classes, strategy="static", num_classes=1)
    call(boxes, classes, torch.zeros(1, 64, 4), strategy="localize_to_classify", num_classes=1)
    call(boxes, classes, None, torch.zeros(1, 64, 1), strategy="classify_to_localize")


def test_image_without_ground_truth_is_background():
    got = call([torch.zeros(0, 4)], [torch.zeros(0)], strategy="static", num_classes=3)
    assert (got.cls_labels == 3).all() and not got.loc_mask.any()
    assert (got.cls_gt_inds == -1).all() and (got.loc_gt_inds == -1).all()


@pytest.mark.parametrize("seed", range(30))
def test_chunks_do_not_decide_ties(seed):
    # A regular grid and constant scores: many equal priors, whose amplified qualities must stay
    # equal wherever they stand in a tensor (float32 powers of PyTorch's CPU kernels would not).
    centres = torch.cartesian_prod(torch.arange(2.0, 32, 4), torch.arange(2.0, 32, 4))
    anchors = torch.cat((centres - 5, centres + 5), dim=1)
    generator = torch.Generator().manual_seed(seed)
    gt_boxes = [random_boxes(generator, 7, EXTENT, 4, 16) // 2 * 2 + 1 for _ in range(3)]
    gt_boxes = [torch.cat((b[:, :2], torch.maximum(b[:, 2:], b[:, :2] + 2)), 1) for b in gt_boxes]
    gt_classes = [torch.zeros(7, dtype=torch.int64) for _ in gt_boxes]
    logits = torch.full((3, len(anchors), 1), 0.3)
    args = (anchors, gt_boxes, gt_classes, None, logits)
    whole = AnchorMatcher("classify_to_localize")(*args)
    row_by_row = AnchorMatcher("classify_to_localize", memory_budget=1)(*args)
    for a, b in zip(whole, row_by_row, strict=True):
        assert torch.equal(a, b)


BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 9.0, 9.0]])
FITTING = {
    "anchors": BOXES,
    "gt_boxes": [BOXES[:1]],
    "gt_classes": [torch.tensor([1])],
    "pred_boxes": BOXES[None],
    "pred_logits": torch.zeros(1, 2, 3),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anchors", torch.zeros(0, 4)),
        ("anchors", torch.zeros(8)),
        ("anchors", torch.zeros(())),
        ("anchors", torch.zeros(1, 2, 4)),
        ("anchors", torch.zeros(2, 5)),
        ("gt_boxes", [torch.zeros(4)]),
        ("gt_boxes", [torch.zeros(1, 5)]),
        ("gt_classes", [torch.tensor([[1]])]),
        ("gt_classes", [torch.tensor(1)]),
        ("pred_boxes", torch.zeros(1, 2)),
        ("pred_boxes", torch.zeros(1, 2, 5)),
        ("pred_logits", torch.zeros(1, 2)),
        ("pred_logits", torch.zeros(1, 2, 3, 1)),
    ],
)
def test_no_anchors_and_tensors_of_another_rank_are_refused(name, value):
    matcher = AnchorMatcher("mutual_guidance", 2.0, (0.4, 0.5))
    matcher(**FITTING)
    told = {"anchors": "anchor", "gt_boxes": "image 0", "gt_classes": "image 0"}.get(name, name)
    with pytest.raises(ValueError, match=told):
        matcher(**{**FITTING, name: value})


@pytest.mark.parametrize(
    ("points", "strides", "levels"),
    [
        ((0, 2), (0,), (0,)),
        ((2,), (2,), (2,)),
        ((2, 3), (2,), (2,)),
        ((2, 2), (1, 2), (2,)),
        ((2, 2), (2,), (1,)),
    ],
)
def test_no_points_and_tensors_of_another_rank_are_refused(points, strides, levels):
    args = [torch.zeros(shape) for shape in (points, strides, levels)]
    with pytest.raises(ValueError, match="point|strides|levels"):
        PointMatcher("static", 2.0, num_classes=3)(*args, [BOXES[:1]], [torch.tensor([1])])
