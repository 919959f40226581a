import numpy as np
import pytest

from mutual_guidance.data.records import FoundObject, Record, pack_objects
from mutual_guidance.evaluation.detections import Detections
from mutual_guidance.evaluation.ground_truth import ground_truths
from mutual_guidance.evaluation.matching import (
    FALSE,
    NOT_COUNTED,
    confusion,
    disagreement,
    match,
    precision_recall,
    quality,
)


def detections(boxes, scores, classes):
    return Detections(
        np.array(boxes, float).reshape(-1, 4), np.array(scores, float), np.array(classes, int)
    )


def objects(*boxes_and_classes, **flags):
    found = [FoundObject(box, c, "", **flags) for box, c in boxes_and_classes]
    return ground_truths(Record("", 0, 100, 100, pack_objects(found, 100, 100, "")[0]))


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


@pytest.mark.parametrize("mark", ["crowd", "difficult"])
def test_what_does_not_count_neither_helps_nor_harms(mark):
    gts = objects(([0, 0, 10, 10], 0), **{mark: True})
    matched = match(detections([[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.8], [0, 0]), gts)
    assert matched.gt_inds.tolist() == [NOT_COUNTED, NOT_COUNTED] and matched.num_false == 0


def test_what_lies_in_a_crowd_counts_neither_way():
    gts = objects(([0, 0, 100, 100], 0), crowd=True)
    boxes = [[5, 5, 15, 15], [90, 90, 130, 130], [5, 5, 15, 15]]
    matched = match(detections(boxes, [0.9, 0.8, 0.7], [0, 0, 1]), gts)
    # The first lies inside, a sixteenth of the second does, the third is of another class.
    assert matched.gt_inds.tolist() == [NOT_COUNTED, FALSE, FALSE]
    difficult = match(
        detections(boxes[:1], [0.9], [0]), objects(([0, 0, 100, 100], 0), difficult=True)
    )
    assert difficult.gt_inds.tolist() == [FALSE]


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


def scene():
    """Three images: a box of the wrong class, a false one, a missed object."""
    gts = [
        objects(([0, 0, 10, 10], 0), ([20, 0, 30, 10], 0)),
        objects(([5, 5, 25, 25], 1)),
        objects(([0, 0, 20, 20], 0)),
    ]
    found = [
        detections([[0, 0, 10, 10], [20, 0, 30, 10]], [0.9, 0.8], [0, 1]),
        detections([[5, 5, 25, 25], [30, 30, 40, 40]], [0.7, 0.6], [1, 0]),
        detections([], [], []),
    ]
    return [match(d, g) for d, g in zip(found, gts, strict=True)], gts


def test_precision_and_recall_by_hand():
    matches, gts = scene()
    curve = precision_recall(matches, gts)
    assert curve.scores.tolist() == [0.9, 0.8, 0.7, 0.6]  # right, wrong, right, wrong; 4 objects
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])
    assert curve.recall.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 2, 1 / 2])
    score, f1 = curve.best_f1()
    assert score == 0.7 and f1 == pytest.approx(2 * (2 / 3) / 2 / (2 / 3 + 1 / 2))
    of_one = precision_recall(matches, gts, class_id=1)
    assert (of_one.scores.tolist(), of_one.recall.tolist()) == ([0.8, 0.7], [0, 1])


def test_equal_scores_are_one_threshold():
    gts = objects(([0, 0, 10, 10], 0))
    matched = match(detections([[0, 0, 10, 10], [50, 0, 60, 10]], [0.5, 0.5], [0, 0]), gts)
    curve = precision_recall([matched], [gts])
    assert [x.tolist() for x in curve] == [[0.5], [0.5], [1]]


def test_precision_and_recall_of_nothing():
    nothing = match(detections([], [], []), objects())
    curve = precision_recall([nothing], [objects()])
    assert len(curve.scores) == 0 and curve.best_f1() == (0, 0)
    assert precision_recall([], []).best_f1() == (0, 0)


def test_what_is_not_counted_is_in_no_curve():
    gts = objects(([0, 0, 10, 10], 0), crowd=True)
    matched = match(detections([[0, 0, 10, 10]], [0.9], [0]), gts)
    assert len(precision_recall([matched], [gts]).scores) == 0
    assert confusion([matched], [gts], 1).sum() == 0 and np.isnan(quality(matched, gts))


def test_confusion_by_hand():
    matches, gts = scene()
    # Of class 0 one is found, one taken for class 1 and one missed; one is found in the background.
    assert confusion(matches, gts, 2).tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]
    above = [matched.above(0.7) for matched in matches]
    assert confusion(above, gts, 2).tolist() == [[1, 1, 1], [0, 1, 0], [0, 0, 0]]


def test_an_object_is_confused_once():
    gts = objects(([0, 0, 10, 10], 0))
    matched = match(detections([[0, 0, 10, 10], [0, 0, 10, 9]], [0.9, 0.8], [1, 1]), gts)
    assert confusion([matched], [gts], 2).tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_the_right_class_goes_before_the_better_score():
    gts = objects(([0, 0, 10, 10], 0))
    matched = match(detections([[0, 0, 10, 10], [0, 0, 10, 8]], [0.9, 0.8], [1, 0]), gts)
    assert confusion([matched], [gts], 2).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_quality_by_hand():
    matches, gts = scene()
    # 1 of (1 + half of a false and a missed one), 1 of (1 + half of a false one), and a missed one.
    values = [quality(m, g) for m, g in zip(matches, gts, strict=True)]
    assert values == pytest.approx([1 / 2, 1 / 1.5, 0])
    near = match(detections([[0, 0, 10, 8]], [0.9], [0]), objects(([0, 0, 10, 10], 0)))
    assert quality(near, objects(([0, 0, 10, 10], 0))) == pytest.approx(0.8)


def test_matches_above_a_score_are_those_of_fewer_detections():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (30, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 40, (30, 2))])
    found = detections(boxes, rng.random(30), rng.integers(0, 2, 30))
    near = zip((boxes[::3] + 2).tolist(), found.classes[::3], strict=True)
    gts = objects(*((box, int(c)) for box, c in near))
    kept = found.scores >= 0.4
    fewer = match(detections(*(x[kept] for x in found)), gts)
    for one, other in zip(match(found, gts).above(0.4), fewer, strict=True):
        assert np.array_equal(one, other)
