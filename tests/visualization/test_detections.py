import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances

from mutual_guidance.evaluation.ground_truth import ground_truths
from mutual_guidance.visualization.detections import (
    FALSE,
    NOT_COUNTED,
    disagreement,
    draw_comparison,
    match,
)


def detections(boxes, scores, classes):
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return instances


def objects(*boxes_and_classes, **flags):
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": c, **flags}
        for box, c in boxes_and_classes
    ]
    return ground_truths({"annotations": annotations})


def test_matching_by_hand():
    gts = objects(([0, 0, 10, 10], 0), ([20, 0, 30, 10], 0), ([50, 0, 60, 10], 1))
    boxes = [[0, 0, 10, 6], [0, 0, 10, 10], [50, 0, 60, 10], [20, 0, 30, 4]]
    matched = match(detections(boxes, [0.9, 0.8, 0.7, 0.95], [0, 0, 0, 0]), gts)
    # By score: 0.95 has IoU 0.4 with the second object, too little. 0.9 takes the first with 0.6,
    # so that 0.8, which fits it exactly, comes too late. 0.7 lies on an object of another class.
    assert matched.scores == pytest.approx([0.95, 0.9, 0.8, 0.7])
    assert matched.gt_inds.tolist() == [FALSE, 0, FALSE, FALSE]
    assert matched.ious == pytest.approx([0.4, 0.6, 1.0, 0.0])
    assert matched.num_false == 3
    assert matched.gt_ious(3) == pytest.approx([0.6, 0, 0])


def test_crowds_neither_help_nor_harm():
    gts = objects(([0, 0, 10, 10], 0), iscrowd=1)
    matched = match(detections([[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.8], [0, 0]), gts)
    assert matched.gt_inds.tolist() == [NOT_COUNTED, NOT_COUNTED] and matched.num_false == 0


def test_disagreement_by_hand():
    gts = objects(([0, 0, 10, 10], 0), ([20, 0, 30, 10], 0))
    first = match(detections([[0, 0, 10, 8], [20, 0, 30, 10]], [0.9, 0.8], [0, 0]), gts)
    second = match(detections([[0, 0, 10, 6], [70, 0, 80, 9]], [0.9, 0.8], [0, 0]), gts)
    # |0.8 - 0.6| for the first object, |1 - 0| for the second, half of |0 - 1| false positives.
    assert disagreement([first, second], gts) == pytest.approx(0.2 + 1 + 0.5)
    assert disagreement([first, first], gts) == 0


def test_nothing_found_and_nothing_there():
    nothing = match(detections([], [], []), objects())
    assert disagreement([nothing, nothing], objects()) == 0
    alone = match(detections([[0, 0, 9, 9]], [0.5], [0]), objects())
    assert disagreement([nothing, alone], objects()) == 0.5
    missed = match(detections([], [], []), objects(([0, 0, 9, 9], 0)))
    assert missed.gt_ious(1).tolist() == [0]


def test_drawn_colours(tmp_path):
    gts = objects(([10, 10, 40, 40], 0))
    found = match(detections([[10, 10, 40, 40]], [0.9], [0]), gts)
    wrong = match(detections([[50, 50, 90, 90]], [0.9], [0]), gts)
    image = np.zeros((100, 100, 3), np.uint8)
    models = {"a $x^{": found, "b": wrong}  # no mathematics
    figure = draw_comparison(image, gts, models, ["<script>"])
    colours = [[p.get_edgecolor()[:3] for p in axes.patches] for axes in figure.axes]
    assert [len(c) for c in colours] == [1, 2, 2]  # the ground truth, and a detection
    green, red = colours[1][1], colours[2][1]
    assert green[1] > green[0] and red[0] > red[1]
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes]
    assert texts == [["<script>"], ["0.90, IoU 1.00"], ["<script> 0.90, IoU 0.00"]]
    assert figure.axes[1].get_title() == "a $x^{: 1 of 1 found, 0 false"
    figure.savefig(tmp_path / "drawn.png")
