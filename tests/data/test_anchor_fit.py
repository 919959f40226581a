import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from mutual_guidance.config import load_config
from mutual_guidance.data.anchor_fit import (
    MAX_LEVELS,
    MIN_LEVELS,
    Objects,
    best_anchor_ious,
    fits_better,
    misses,
    resized_objects,
    suggest_anchors,
    suggest_sizes,
)
from mutual_guidance.data.records import FoundObject, Record, pack_objects
from tests.conftest import REPOSITORY


def one_image(boxes, side=64.0):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    count = len(boxes)
    return Objects(
        boxes, torch.full((count, 2), side), torch.zeros(count).long(), torch.tensor([count])
    )


def square_anchors(side, stride, offset=0.5):
    return DefaultAnchorGenerator(
        sizes=[[side]], aspect_ratios=[[1.0]], strides=[stride], offset=offset
    )


def test_best_iou_by_hand():
    # Anchors of 16 pixels around (8, 8), (24, 8), ... (56, 56): they tile the image.
    boxes = [
        [0, 0, 16, 16],  # an anchor itself
        [0, 0, 16, 8],  # half of one: 128 / 256
        [8, 0, 24, 16],  # between two: 128 / (256 + 256 - 128) = 1/3
        [8, 8, 24, 24],  # between four: 64 / (256 + 256 - 64) = 1/7
        [0, 0, 64, 64],  # sixteen times as large: 1/16
    ]
    ious = best_anchor_ious(one_image(boxes), square_anchors(16, 16))
    assert ious.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 7, 1 / 16])
    # Of five objects three are below 0.5 and 0.4, and two below 0.2.
    assert misses(ious) == pytest.approx([0.6, 0.6, 0.4])


@settings(max_examples=40)
@given(
    st.lists(st.tuples(*[st.floats(0, 59, width=32)] * 2, *[st.floats(1, 60, width=32)] * 2)),
    st.sampled_from([0.0, 0.5]),
)
def test_best_iou_is_that_of_all_anchors(rows, offset):
    rows = [*rows, (3.0, 4.0, 20.0, 10.0)]
    boxes = [[x, y, min(x + w, 64.0), min(y + h, 64.0)] for x, y, w, h in rows]
    generator = DefaultAnchorGenerator(
        sizes=[[8, 11.3], [16, 22.6]], aspect_ratios=[[1.0, 0.5, 2.0]], strides=[8, 16],
        offset=offset,
    )  # fmt: skip
    anchors = generator([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)])
    everywhere = torch.cat([a.tensor for a in anchors])
    expected = box_iou(torch.tensor(boxes), everywhere).amax(dim=1)
    ious = best_anchor_ious(one_image(boxes), generator)
    torch.testing.assert_close(ious, expected, atol=1e-5, rtol=0)


def test_suggested_sizes_reach_from_one_quantile_to_the_other():
    # 100 scales 1..100: the 5 % quantile is the sixth, the 95 % the 95th. From 6 on, sizes of
    # 6, 8.5, 12, 17, 24, 34, 48, 68, 96, 136 reach 95 at the fifth level.
    cfg = load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"), ["INPUT.SQUARE_SIZE", 512])
    sizes = suggest_sizes(torch.arange(1.0, 101.0), cfg)
    assert [s[0] for s in sizes] == [6, 12, 24, 48, 96]
    assert sizes[0][1] == pytest.approx(6 * 2**0.5, abs=0.01)
    same = suggest_sizes(torch.full((9,), 30.0), cfg)
    assert len(same) == MIN_LEVELS and same[0] == [30.0, 42.43]
    # A stride of 128 divides 512, one of 64 divides 320, and neither 300; 0 is no square.
    for side, most in ((512, 5), (320, 4), (300, 3), (0, MAX_LEVELS)):
        cfg.INPUT.SQUARE_SIZE = side
        assert len(suggest_sizes(torch.tensor([1.0, 1000.0]), cfg)) == most


def test_suggested_levels_have_the_aspect_ratios_of_the_first():
    ratios = [[1.0, 2.0], [1.0], [1.0], [1.0], [1.0]]  # of each level of the config
    opts = ["INPUT.SQUARE_SIZE", 300, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", ratios]
    cfg = load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"), opts)
    anchors = suggest_anchors(one_image([[0, 0, 9, 9], [0, 0, 60, 60]]), cfg)
    assert anchors.num_cell_anchors == [4] * 3


def test_other_anchors_must_fit_better_by_a_percent_and_nowhere_worse():
    ours = torch.tensor([0.1] * 2 + [0.45] * 2 + [0.9] * 96)
    assert not fits_better(ours, than=ours)
    assert fits_better(torch.tensor([0.1] * 2 + [0.9] * 98), than=ours)
    assert not fits_better(torch.tensor([0.1] * 3 + [0.9] * 97), than=ours)  # worse below 0.2
    assert not fits_better(torch.tensor([0.11] * 2 + [0.46] * 2 + [0.9] * 96), than=ours)


def test_crowd_regions_are_no_objects_and_images_are_resized_as_for_testing():
    cfg = load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"), ["INPUT.SQUARE_SIZE", 64])
    found = [FoundObject([0, 0, 20, 10], 1, 1), FoundObject([0, 0, 9, 9], 0, 2, crowd=True)]
    records = [
        Record("a", 1, 128, 32, pack_objects(found, 128, 32, "")[0]),
        Record("b", 2, 128, 32, pack_objects([], 128, 32, "")[0]),
    ]
    objects = resized_objects(records, cfg)
    assert objects.boxes.tolist() == [[0, 0, 10, 20]] and objects.classes.tolist() == [1]
    assert objects.image_sizes.tolist() == [[64, 64]] and objects.per_image.tolist() == [1, 0]
    cfg.INPUT.SQUARE_SIZE, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 0, 64, 1000
    assert resized_objects(records, cfg).boxes.tolist() == [[0, 0, 40, 20]]
    cfg.INPUT.MIN_SIZE_TEST = 0
    assert resized_objects(records, cfg).boxes.tolist() == [[0, 0, 20, 10]]
