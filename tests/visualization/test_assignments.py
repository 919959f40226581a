from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes
from PIL import Image, ImageDraw

from mutual_guidance.modeling.meta_arch import DensePredictions, ground_truths
from mutual_guidance.visualization import (
    assignments,
    canvas,
    compared_strategies,
    draw_assignments,
)
from mutual_guidance.visualization.labelling import predict

from .scenes import SIDE, build, grey_image


@pytest.mark.parametrize("strategies", [("static", "mutual_guidance"), ("task_aligned", "atss")])
@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_counts_equal_the_matchers(kind, strategies):
    detector, image = build(kind), grey_image()
    _, counts = draw_assignments(detector, image, "title", strategies)
    dense = predict(detector, [image.inputs])
    truth = ground_truths([image.inputs["instances"]])
    args = (detector.candidates(dense.anchors), truth, dense.boxes, dense.logits)
    first, second = (detector.matcher.with_strategy(name).match(*args) for name in strategies)
    expected = {"ground_truths": 2}
    for task in ("cls", "loc"):
        before, after = (getattr(x, f"{task}_gt_inds") >= 0 for x in (first, second))
        expected[f"{task}_kept"] = int((before & after).sum())
        expected[f"{task}_removed"] = int((before & ~after).sum())
        expected[f"{task}_added"] = int((after & ~before).sum())
    assert counts == expected
    assert min(counts["cls_added"], counts["loc_added"]) > 0  # the comparison has substance


def test_what_is_compared():
    assert compared_strategies("static") == ("static", "mutual_guidance")
    assert compared_strategies("atss") == ("static", "atss")


def colored(panel, color):
    """Bounding box of the pixels of a colour in a picture: left, top, right, bottom, or None."""
    rows, columns = np.nonzero((np.asarray(panel) == color).all(axis=2))
    if len(rows) == 0:
        return None
    return columns.min(), rows.min(), columns.max(), rows.max()


@pytest.mark.parametrize("are_points", [False, True])
def test_colours_and_places(monkeypatch, are_points):
    # Three anchors in the left half of the image, one of each fate, and no matcher.
    anchors = torch.tensor([[8.0, 8, 40, 40], [16, 64, 48, 96], [0, 100, 30, 128]])
    image = grey_image()
    image.inputs["instances"] = image.inputs["instances"][1:]  # (60, 50, 120, 110)
    fates = torch.eye(3, dtype=torch.bool)
    difference = assignments.Difference(removed=fates[0], added=fates[1], num_kept=1)
    dense = DensePredictions([Boxes(anchors)], None, None, None)
    monkeypatch.setattr(assignments, "predict", lambda *_: dense)
    monkeypatch.setattr(
        assignments,
        "differences",
        lambda *_: {"cls": difference, "loc": difference},
    )
    panels = []
    monkeypatch.setattr(
        canvas, "compose", lambda title, drawn: panels.extend(drawn) or Image.new("RGB", (1, 1))
    )
    detector = SimpleNamespace(candidate_kind="points" if are_points else "boxes")
    _, counts = draw_assignments(detector, image, "title", ("simota", "atss"))
    assert counts["loc_kept"] == counts["loc_added"] == 1

    scale = canvas.SHORT_SIDE // SIDE  # 4
    for panel, added in zip(panels, (canvas.GREEN, canvas.YELLOW), strict=True):
        if are_points:  # dots of radius 4 with a black rim at (24, 24) and (32, 80)
            red, other = colored(panel.image, canvas.RED), colored(panel.image, added)
            assert red == pytest.approx((24 * 4 - 3, 24 * 4 - 3, 24 * 4 + 3, 24 * 4 + 3), abs=1)
            assert other == pytest.approx((32 * 4 - 3, 80 * 4 - 3, 32 * 4 + 3, 80 * 4 + 3), abs=1)
        else:
            assert colored(panel.image, canvas.RED) == tuple(v * scale for v in (8, 8, 40, 40))
            assert colored(panel.image, added) == tuple(v * scale for v in (16, 64, 48, 96))
        assert colored(panel.image, canvas.WHITE) == tuple(v * scale for v in (60, 50, 120, 110))
        # Dashed: between 20 % and 80 % of the upper side is white.
        side = np.asarray(panel.image)[50 * scale, 60 * scale : 120 * scale]
        assert 0.2 < (side == canvas.WHITE).all(axis=1).mean() < 0.8
        # Inside the boxes the grey of 100 is darker and nothing else.
        assert panel.image.getpixel((90 * scale, 80 * scale)) == (65, 65, 65)
        assert [text for _, text in panel.legend][1] == "simota only: 1"
    colours = [
        colored(p.image, c) for p, c in zip(panels, (canvas.YELLOW, canvas.GREEN), strict=True)
    ]
    assert colours == [None, None]


def test_an_image_without_objects_can_be_drawn():
    detector, image = build("anchors"), grey_image()
    image.inputs["instances"] = image.inputs["instances"][:0]
    _, counts = draw_assignments(detector, image, "title", ("static", "atss"))
    assert set(counts.values()) == {0}


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [5, 5, 5.2, 9], [-20, -20, 600, 600]])
def test_marks_of_any_size(box):
    picture = Image.new("RGB", (64, 64))
    for mark in (canvas.draw_boxes, canvas.draw_dashed_boxes, canvas.draw_points):
        mark(ImageDraw.Draw(picture), torch.tensor([box], dtype=torch.float32), canvas.RED)


def test_panels_of_a_wide_image_share_a_legend_line():
    pixels = np.zeros((100, 200, 3), np.uint8)
    image, scale = canvas.enlarge(pixels)
    assert image.size == (1024, 512) and scale == 5.12
    panel = canvas.Panel("caption", image, [(canvas.RED, "one"), (None, "two")])
    picture = canvas.compose("title", [panel, panel])
    assert picture.width > 2 * 1024 and colored(picture, canvas.RED) is not None
