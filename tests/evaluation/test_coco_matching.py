import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from mutual_guidance import alive
from mutual_guidance.data.records import OBJECT, Record
from mutual_guidance.evaluation import coco_matching
from mutual_guidance.evaluation.coco import _coco, average_precisions
from mutual_guidance.evaluation.coco_matching import SparseCOCOeval

LIMITS = [1, 10, 100, 120]


@st.composite
def annotations(draw):
    """
    Ground truths and detections of two images and two classes, on few places and of few scores, so
    that many IoUs and scores are equal, and IoUs are thresholds.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    step, most = draw(st.sampled_from([(1, 30), (4, 30), (10, 150)]))
    crowded = draw(st.sampled_from([0.0, 0.2]))

    def some(number):
        for _ in range(number):
            low, size = rng.integers(0, 40 // step + 1, 2), rng.integers(1, 120 // step + 1, 2)
            box = [float(v * step) for v in (*low, *size)]
            yield {"image_id": int(rng.integers(2)), "category_id": int(rng.integers(2)),
                   "bbox": box, "area": box[2] * box[3], "iscrowd": 0}  # fmt: skip

    truth = [{**a, "iscrowd": int(rng.random() < crowded)} for a in some(rng.integers(0, 30))]
    near = [dict(a, iscrowd=0) for a in truth for _ in range(rng.integers(0, 3))]
    found = [*some(rng.integers(0, most)), *near]
    return truth, [{**a, "score": float(rng.integers(1, 9) / 8)} for a in found]


def evaluated(kind, truth, found):
    evaluation = kind(*(_coco((0, 1), (0, 1), sample) for sample in (truth, found)), "bbox")
    evaluation.params.maxDets = LIMITS
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@settings(max_examples=60)
@given(annotations())
def test_all_figures_are_pycocotools(sample):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coco_matching, "_FEW_PAIRS", 0)
        expected, ours = (evaluated(kind, *sample) for kind in (COCOeval, SparseCOCOeval))
    for key in ("precision", "recall", "scores"):
        assert np.array_equal(ours.eval[key], expected.eval[key])
    for image, of_image in zip(expected.evalImgs, ours.evalImgs, strict=True):
        assert (image is None) == (of_image is None)
        if image is not None:
            assert of_image["dtScores"] == image["dtScores"]
            assert np.array_equal(of_image["dtMatches"], image["dtMatches"] > 0)
            assert np.array_equal(of_image["dtIgnore"], image["dtIgnore"])
            assert np.array_equal(of_image["gtIgnore"], image["gtIgnore"])


def record_of(truth, image):
    objects = np.zeros(sum(a["image_id"] == image for a in truth), OBJECT)
    for row, a in zip(objects, (a for a in truth if a["image_id"] == image), strict=True):
        x, y, width, height = a["bbox"]
        row["box"] = x, y, x + width, y + height
        row["area"], row["class"], row["crowd"] = a["area"], a["category_id"], a["iscrowd"]
    return Record("", image, 200, 200, objects)


@settings(max_examples=20)
@given(annotations())
def test_one_class_after_the_other_has_the_figures_of_all_at_once(sample):
    truth, found = sample
    records = [record_of(truth, image) for image in (0, 1)]
    ours = average_precisions(records, found, 2, LIMITS)
    assert np.array_equal(ours, evaluated(COCOeval, truth, found).eval["precision"])


def test_it_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(alive, "_last_sign", -1e9)
    evaluated(SparseCOCOeval, [], [])
    assert alive.seconds_since_sign() < 60
