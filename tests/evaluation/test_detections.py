import numpy as np
import pytest

from mutual_guidance.data import register_datasets
from mutual_guidance.evaluation import PascalVOCEvaluator, build_evaluator
from mutual_guidance.evaluation.detections import (
    Detections,
    read_detections,
    write_detections,
)
from tests.conftest import predicted, tiny_config


def random_instances(rng, true_boxes, true_classes, count=40):
    """Some near the true boxes, others anywhere; many scores are low, as a detector's are."""
    near = np.repeat(true_boxes, 3, axis=0) + rng.normal(0, 1, (3 * len(true_boxes), 4))
    corners = rng.uniform(0, 40, (count, 2))
    anywhere = np.concatenate([corners, corners + rng.uniform(2, 24, (count, 2))], axis=1)
    scores = np.concatenate([rng.random(len(near)) ** 0.5, rng.random(count) ** 4])
    classes = np.concatenate([np.repeat(true_classes, 3), rng.integers(0, 3, count)])
    boxes = np.concatenate([near, anywhere]).clip(0, 64)  # as inference does
    return predicted(boxes, scores, classes)


def test_a_round_trip_rounds_to_16_bits(tmp_path):
    path = tmp_path / "some.npz"
    boxes = np.array([[0.0, -0.1, 10.03, 20.0], [1.5, 2.5, 639.99, 480.0]])
    there = {
        "im 1": Detections(boxes, np.array([0.9, 0.0051]), np.array([2, 0])),
        "none": Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)),
        "im_2": Detections(boxes[:1], np.array([1.0]), np.array([79])),
    }
    write_detections(path, there)
    back = read_detections(path)
    assert list(back) == ["im 1", "none", "im_2"]
    # Half of 1/65535 of the largest coordinate and of 1.
    assert back["im 1"].boxes == pytest.approx(boxes.clip(min=0), abs=640 / 131070)
    assert back["im 1"].scores == pytest.approx([0.9, 0.0051], abs=1 / 131070)
    assert back["im 1"].classes.tolist() == [2, 0] and back["im_2"].classes.tolist() == [79]
    assert back["none"].boxes.shape == (0, 4) and len(back["none"].scores) == 0


def test_a_large_image_does_not_coarsen_the_boxes_of_a_small_one(tmp_path):
    small, large = np.array([[1.01, 2.02, 12.03, 14.04]]), np.array([[0.0, 0.0, 20000.0, 900.0]])
    rest = np.array([0.5]), np.array([0])
    write_detections(
        tmp_path / "x.npz", {"a": Detections(small, *rest), "b": Detections(large, *rest)}
    )
    back = read_detections(tmp_path / "x.npz")
    assert back["a"].boxes == pytest.approx(small, abs=14.04 / 131070)
    assert back["b"].boxes == pytest.approx(large, abs=20000 / 131070)


def flipped(data):
    """With 40 bytes in the middle flipped, of a compressed array."""
    middle = len(data) // 2
    return data[:middle] + bytes(b ^ 255 for b in data[middle : middle + 40]) + data[middle + 40 :]


@pytest.mark.parametrize("damage", [lambda data: b"", flipped, lambda data: data[: len(data) // 2]])
def test_a_damaged_file_is_no_detections(tmp_path, damage):
    path = tmp_path / "some.npz"
    boxes = np.random.default_rng(0).uniform(0, 64, (500, 4))
    write_detections(path, {"a": Detections(boxes, np.ones(500), np.ones(500, int))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="it holds no detections"):
        read_detections(path)


def test_what_is_kept_has_the_ap_of_the_evaluation(voc, voc_entry, tmp_path):
    rng = np.random.default_rng(1)
    true = {}
    for i in range(30):
        corners = rng.integers(1, 30, (3, 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 30, (3, 2))], axis=1)
        true[f"im{i}"] = boxes - [1, 1, 0, 0], np.arange(3)
        names = zip(voc_entry["classes"], boxes.tolist(), strict=True)
        voc.add(f"im{i}", list(names))
    register_datasets([voc_entry])
    cfg = tiny_config("retinanet_R_18", "OUTPUT_DIR", str(tmp_path))
    evaluator = build_evaluator(cfg, voc_entry["name"])
    evaluator.reset()
    for image_id, truth in true.items():
        found = random_instances(rng, *truth)
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    printed = evaluator.evaluate()["bbox"]

    again = PascalVOCEvaluator(voc_entry["name"])
    again.reset()
    kept = read_detections(tmp_path / "detections" / f"{voc_entry['name']}.npz")
    for image_id, found in kept.items():
        again.process([{"image_id": image_id}], [{"instances": predicted(*found)}])
    assert 20 < printed["AP"] < 80
    assert again.evaluate()["bbox"] == pytest.approx(printed, abs=0.05)
