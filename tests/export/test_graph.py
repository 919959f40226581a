import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from mutual_guidance.export import DetectorGraph, ExportedDetector, Suppression
from tests.conftest import tiny_config, tiny_model

from .test_files import SIZE, images

STOCK_FCOS = ("MODEL.MUTUAL_GUIDANCE.HEAD", "shared")


@pytest.mark.parametrize("opts", [(), STOCK_FCOS])
@pytest.mark.parametrize("detector", ["retinanet_R_18", "fssd_R_18", "fcos_R_18"])
def test_detections_are_those_of_the_model(detector, opts):
    model = tiny_model(tiny_config(detector, "TEST.DETECTIONS_PER_IMAGE", 40, *opts))
    model.test_topk_candidates = 50
    suppression = Suppression.of_model(model, SIZE)
    inputs = [{"image": x, "height": 90, "width": 50} for x in images()]
    with torch.no_grad():
        expected = model(inputs)
        inside = ExportedDetector(DetectorGraph(model, suppression))(inputs)
        outside = ExportedDetector(DetectorGraph(model), suppression)(inputs)
    for model_output, *outputs in zip(expected, inside, outside, strict=True):
        want = model_output["instances"]
        assert len(want) > 5 and want.image_size == (90, 50)
        for output in outputs:
            got = output["instances"]
            assert got.image_size == want.image_size
            assert torch.equal(got.pred_classes, want.pred_classes)
            assert torch.allclose(got.scores, want.scores, atol=1e-5)
            assert torch.allclose(got.pred_boxes.tensor, want.pred_boxes.tensor, atol=1e-3)


def test_levels_are_those_of_the_anchors():
    suppression = Suppression.of_model(tiny_model(tiny_config()), SIZE)
    assert suppression.level_sizes == [16 * 16 * 6, 8 * 8 * 6]  # 2 sizes x 3 ratios a location
    assert Suppression(**suppression.settings()).settings() == suppression.settings()


def test_a_model_in_training_stays_as_it_is():
    model = tiny_model(tiny_config()).train()
    before = copy.deepcopy(model.state_dict())
    Suppression.of_model(model, SIZE)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_suppression_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 10]]).repeat(
        2, 1, 1
    )  # two images
    scores = torch.zeros(2, 4, 2)
    scores[0, :, 0] = torch.tensor([0.6, 0.9, 0.3, 0.05])
    scores[0, 0, 1] = 0.7
    suppression = Suppression([2, 2], 0.1, topk_candidates=3, nms_thresh=0.5, max_detections=5)
    got_boxes, got_scores, classes = suppression(boxes, scores)
    # Of class 0, the second box suppresses the first (IoU 0.9) and 0.05 is below the threshold.
    assert got_scores[0].tolist() == pytest.approx([0.9, 0.7, 0.3, 0, 0])
    assert classes.tolist() == [[0, 1, 0, -1, -1], [-1] * 5]
    assert torch.equal(got_boxes[0, :3], boxes[0, [1, 0, 2]])
    assert not got_scores[1].any()


def plain_suppression(boxes, scores, settings):
    """(score, class, anchor) of one image, as the docstring says, one step after another."""
    num_classes, first, candidates = scores.shape[1], 0, []
    for size in settings["level_sizes"]:
        level = [
            (scores[r, k].item(), k, r)
            for r in range(first, first + size)
            for k in range(num_classes)
        ]
        candidates += sorted(level, reverse=True)[: settings["topk_candidates"]]
        first += size
    kept = []
    for score, k, r in sorted(candidates, reverse=True):
        rivals = [boxes[other] for _, c, other in kept if c == k]
        free = not rivals or box_iou(boxes[r : r + 1], torch.stack(rivals)).max() <= 0.5
        if score > settings["score_thresh"] and free:
            kept.append((score, k, r))
    return kept[: settings["max_detections"]]


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 9))
def test_suppression_is_the_plain_one(seed, topk, first_level, most):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 16, 2, generator=generator)
    boxes = torch.cat((corners, corners + torch.rand(2, 16, 2, generator=generator)), dim=2)
    scores = torch.rand(2, 16, 3, generator=generator)
    suppression = Suppression([first_level, 16 - first_level], 0.3, topk, 0.5, most)
    got_boxes, got_scores, got_classes = suppression(boxes, scores)
    for image in range(2):
        expected = plain_suppression(boxes[image], scores[image], suppression.settings())
        count = len(expected)
        want_scores, want_classes, anchors = zip(*expected, strict=True) if count else ((),) * 3
        assert got_scores[image, :count].tolist() == list(want_scores)
        assert got_classes[image, :count].tolist() == list(want_classes)
        assert torch.equal(got_boxes[image, :count], boxes[image, list(anchors)])
        assert not got_scores[image, count:].any() and (got_classes[image, count:] == -1).all()
