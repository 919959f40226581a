import json
from contextlib import closing

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage, JSONWriter

from mutual_guidance.assignment import Assignment
from mutual_guidance.config import load_config
from mutual_guidance.modeling.late import put_scalars_later
from mutual_guidance.modeling.meta_arch import DensePredictions, ground_truths
from mutual_guidance.modeling.meta_arch.curves import HISTOGRAM_PERIOD, PERIOD, log_assignment
from mutual_guidance.modeling.meta_arch.guided import decode_boxes
from tests.conftest import REPOSITORY, make_instances


def build(config):
    return build_model(load_config(str(REPOSITORY / "configs" / config), ["MODEL.DEVICE", "cpu"]))


def assignment(cls_gt_inds, loc_gt_inds):
    """Class 0 wherever there is an object, else background of one class."""
    cls_gt_inds, loc_gt_inds = torch.tensor(cls_gt_inds), torch.tensor(loc_gt_inds)
    labels = torch.where(cls_gt_inds >= 0, 0, 1)
    return Assignment(labels, cls_gt_inds, loc_gt_inds >= 0, loc_gt_inds)


def logged(storage):
    prefix = "assignment/"
    return {
        name.removeprefix(prefix): value
        for name, (value, _) in storage.latest().items()
        if name.startswith(prefix)
    }


def dense_of(detector, anchors, logits, deltas):
    boxes = decode_boxes(detector.box2box_transform, anchors, deltas)
    return DensePredictions(anchors, logits, deltas, boxes)


@pytest.fixture
def anchors_scene():
    """Two images with two objects and one, three anchors on one level."""
    detector = build("Shapes/retinanet_R_18.yaml")  # whose box weights are (10, 10, 5, 5)
    anchors = [Boxes(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 40, 40]]))]
    gts = [
        make_instances([[0, 0, 10, 10], [0, 0, 40, 40]], [0, 0]),  # small, medium
        make_instances([[0, 0, 100, 100]], [0]),  # large
    ]
    deltas = torch.zeros(2, 3, 4)
    deltas[0, 0, 0] = 1.0  # moved by 1 / 10 of its width: (1, 0, 11, 10)
    # For classification: anchor 0 to object 0, 2 to object 1; in the second image anchor 2.
    # For localisation: anchors 0 and 1 to object 0; in the second image anchor 2.
    labels = assignment([[0, -1, 1], [-1, -1, 0]], [[0, 0, -1], [-1, -1, 0]])
    dense = dense_of(detector, anchors, torch.zeros(2, 3, detector.num_classes), deltas)
    return detector, dense, ground_truths(gts), labels


def test_curves_of_anchors_by_hand(anchors_scene, storage):
    storage.iter = PERIOD - 2
    log_assignment(*anchors_scene)
    expected = {
        # Objects 0, 1, 2 have 1, 1, 1 positives for classification and 2, 0, 1 for localisation.
        "cls_positives_per_object": 1,
        "loc_positives_per_object": 1,
        "loc_positives_per_object_small": 2,
        "loc_positives_per_object_medium": 0,
        "loc_positives_per_object_large": 1,
        # Positive for some task: anchors 0, 1, 2 and in the second image 2. For both: 0 and that.
        "agreement": 2 / 4,
        # The static rule takes anchors 0 and 1 (IoU 0.5) for object 0, anchor 2 for object 1, and
        # in the second image anchor 2, its best. Anchor 1 is none of classification's, and the
        # first image's anchor 2 none of localisation's.
        "cls_as_static": 3 / 4,
        "loc_as_static": 3 / 4,
        # Anchors 0 and 2 are their objects; (0, 0, 40, 40) has 1600 of 10000 pixels.
        "cls_anchor_iou": (1 + 1 + 0.16) / 3,
        # Anchor 1 has half of the object's 100 pixels.
        "loc_anchor_iou": (1 + 0.5 + 0.16) / 3,
        # The moved box overlaps 90 of 110 pixels; the others did not move.
        "cls_regressed_iou": (90 / 110 + 1 + 0.16) / 3,
        "loc_regressed_iou": (90 / 110 + 0.5 + 0.16) / 3,
    }
    assert logged(storage) == pytest.approx(expected)


def test_curves_of_points_by_hand(storage):
    detector = build("PascalVOC-Detection/fcos_R_18.yaml")
    # Points (4, 4) and (12, 4) of stride 8.
    anchors = [Boxes(torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]]))]
    gts = [make_instances([[0, 0, 16, 8]], [0])]
    # l, t, r, b in strides: (0, 0, 8, 8), half of the object, and the object itself.
    deltas = torch.tensor([[[0.5, 0.5, 0.5, 0.5], [1.5, 0.5, 0.5, 0.5]]])
    storage.iter = PERIOD - 2
    labels = assignment([[0, -1]], [[0, 0]])
    dense = dense_of(detector, anchors, torch.zeros(1, 2, 20), deltas)
    log_assignment(detector, dense, ground_truths(gts), labels)
    got = logged(storage)
    # Both points are 4 and 12 from the sides and 4 from top and bottom: sqrt(4 / 12 * 1).
    assert got["cls_centerness"] == got["loc_centerness"] == pytest.approx((1 / 3) ** 0.5)
    assert got["cls_regressed_iou"] == pytest.approx(0.5)
    assert got["loc_regressed_iou"] == pytest.approx(0.75)
    assert got["agreement"] == 0.5
    assert got["loc_positives_per_object_small"] == 2


def test_only_every_twentieth_iteration_is_looked_at(anchors_scene, storage):
    for iteration in (0, PERIOD - 1, PERIOD):
        storage.iter = iteration
        log_assignment(None, *anchors_scene[1:])  # without a detector: nothing may be computed
    assert logged(storage) == {}


def test_histograms_now_and_then(anchors_scene, storage):
    storage.iter = HISTOGRAM_PERIOD - 2
    log_assignment(*anchors_scene)
    histograms = {h["tag"]: h for h in storage._histograms}
    positives = histograms["assignment/loc_positives_per_object"]
    assert (positives["min"], positives["max"], positives["num"]) == (0, 2, 3)
    assert sum(histograms["assignment/cls_anchor_iou"]["bucket_counts"]) == 3


def test_batch_without_objects_or_positives(anchors_scene, storage):
    detector, dense, truth, _ = anchors_scene
    storage.iter = HISTOGRAM_PERIOD - 2
    none = assignment([[-1] * 3] * 2, [[-1] * 3] * 2)
    log_assignment(detector, dense, ground_truths([make_instances([], [])] * 2), none)
    assert logged(storage) == {}
    log_assignment(detector, dense, truth, none)
    assert logged(storage)["loc_positives_per_object"] == 0
    assert "agreement" not in logged(storage) and "cls_anchor_iou" not in logged(storage)


def test_other_processes_stay_silent(anchors_scene, storage, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    storage.iter = PERIOD - 2
    log_assignment(*anchors_scene)
    assert logged(storage) == {}


@pytest.mark.parametrize(
    "config", ["Shapes/retinanet_R_18.yaml", "PascalVOC-Detection/fcos_R_18.yaml"]
)
def test_detectors_log_their_training(config, storage):
    detector = build(config)
    storage.iter = PERIOD - 2
    gt = make_instances([[8, 8, 90, 70]], [1])
    detector([{"image": torch.rand(3, 128, 128) * 255, "instances": gt}])
    got = logged(storage)
    assert 0 <= got["agreement"] <= 1
    assert f"cls_{detector.prior_name}" in got and "loc_positives_per_object_medium" in got


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_curves_reach_detectron2s_own_trainer(anchors_scene, device, gpu, tmp_path):
    detector, dense, truth, labels = anchors_scene
    with EventStorage() as storage, closing(JSONWriter(tmp_path / "metrics.json")) as writer:
        for storage.iter in range(2 * PERIOD):
            log_assignment(detector, dense, truth, labels)
            put_scalars_later({"of_each": torch.ones(()).to(device)})
            if (storage.iter + 1) % PERIOD == 0:
                writer.write()
    rows = map(json.loads, (tmp_path / "metrics.json").read_text().splitlines())
    told = [row["iteration"] for row in rows if "assignment/agreement" in row]
    assert told == [PERIOD - 2, 2 * PERIOD - 2]
