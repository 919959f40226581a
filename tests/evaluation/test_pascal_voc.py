import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation.pascal_voc_evaluation import voc_eval

from mutual_guidance.data import register_datasets
from mutual_guidance.evaluation import PascalVOCEvaluator
from mutual_guidance.evaluation.pascal_voc import match_detections
from tests.conftest import CLASSES, predicted


def evaluator_of(entry):
    register_datasets([entry])
    evaluator = PascalVOCEvaluator(entry["name"])
    evaluator.reset()
    return evaluator


def test_matching_by_hand():
    # Detections best first; gt 0 is taken by the first one above the threshold, gt 1 is difficult.
    ious = np.array([[0.62, 0.1], [0.97, 0.0], [0.2, 0.6], [0.3, 0.4]])
    matched = match_detections(ious, np.array([False, True]))
    assert matched[:, 0].tolist() == [1, 0, -1, 0]  # IoU 0.50
    assert matched[:, 3].tolist() == [0, 1, 0, 0]  # IoU 0.65


def test_ap_by_hand(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 20, 20)), ("red", (41, 41, 60, 60))])
    evaluator = evaluator_of(voc_entry)
    # One exact hit, scored below one false detection, one ground truth missed: precision 1/2 at
    # recall 1/2, so AP = 1/2 * 1/2 at every threshold.
    boxes = [[0, 0, 20, 20], [30, 0, 40, 10]]
    found = predicted(boxes, [0.5, 0.9], [0, 0])
    evaluator.process([{"image_id": "a"}], [{"instances": found}])
    result = evaluator.evaluate()["bbox"]
    assert result["AP"] == result["AP50"] == result["AP75"] == pytest.approx(25.0)
    assert result["AP-red"] == pytest.approx(25.0) and np.isnan(result["AP-green"])


def test_no_detections(voc, voc_entry):
    voc.add("a", [("red", (1, 1, 20, 20))])
    evaluator = evaluator_of(voc_entry)
    evaluator.process([{"image_id": "a"}], [{"instances": predicted([], [], [])}])
    assert evaluator.evaluate()["bbox"]["AP"] == 0


@pytest.mark.parametrize("year", [2007, 2012])
def test_equals_detectron2s_voc_eval(voc, voc_entry, year, tmp_path):
    rng = np.random.default_rng(year)
    names = [f"im{i}" for i in range(12)]
    for name in names:
        corners = rng.integers(1, 40, (4, 2))
        sides = rng.integers(4, 24, (4, 2))
        boxes = np.concatenate((corners, corners + sides), axis=1).tolist()
        marks = [f"<difficult>{int(d)}</difficult>" for d in rng.random(4) < 0.3]
        extra = ["<pose>x</pose><truncated>0</truncated>"] * 4
        voc.add(name, list(zip(rng.choice(CLASSES, 4), boxes, marks, extra, strict=True)))
    register_datasets([voc_entry])
    MetadataCatalog.get(voc_entry["name"]).set(year=year)
    evaluator = evaluator_of(voc_entry)

    lines = {c: [] for c in range(3)}
    scores = rng.permutation(12 * 30) / 500  # all different, three decimals
    for name, image_scores in zip(names, scores.reshape(12, 30), strict=True):
        gts = evaluator._records[names.index(name)].objects
        picks = [gts[rng.integers(len(gts))] for _ in range(30)]
        boxes = np.array([g["box"] for g in picks]) + rng.integers(-3, 4, (30, 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        classes = [int(g["class"]) if rng.random() < 0.8 else rng.integers(3) for g in picks]
        found = predicted(boxes, image_scores, classes)
        evaluator.process([{"image_id": name}], [{"instances": found}])
        for box, score, c in zip(boxes, image_scores, classes, strict=True):
            x0, y0, x1, y1 = box
            lines[c].append(f"{name} {score:.3f} {x0 + 1} {y0 + 1} {x1} {y1}")
    result = evaluator.evaluate()["bbox"]

    for c, class_name in enumerate(CLASSES):
        (tmp_path / f"{class_name}.txt").write_text("\n".join(lines[c]))
    aps = np.array(
        [
            [
                voc_eval(
                    str(tmp_path / "{}.txt"),
                    str(voc.root / "Annotations" / "{}.xml"),
                    str(voc.root / "ImageSets" / "Main" / "train.txt"),
                    class_name,
                    ovthresh=t / 100,
                    use_07_metric=year == 2007,
                )[2]
                for t in range(50, 100, 5)
            ]
            for class_name in CLASSES
        ]
    )
    assert result["AP"] == pytest.approx(100 * aps.mean(), abs=1e-6)
    assert result["AP50"] == pytest.approx(100 * aps[:, 0].mean(), abs=1e-6)
    assert result["AP-green"] == pytest.approx(100 * aps[1].mean(), abs=1e-6)
