"""Matches and intervals against the project's evaluator and against plain numpy."""

import numpy as np
import pytest

from mutual_guidance.data import register_datasets
from mutual_guidance.evaluation import PascalVOCEvaluator
from mutual_guidance.evaluation.detections import Detections
from mutual_guidance.evaluation.ground_truth import GroundTruths, ground_truths, load_records
from mutual_guidance.experiments.bootstrap import compare, draw, metrics, resample
from mutual_guidance.experiments.matches import (
    MOST_FOR_EACH,
    match,
    pool,
    read_matches,
    write_matches,
)
from tests.conftest import CLASSES, VOCWriter, predicted


def some_truths(rng, num_images):
    """Up to three objects an image; one in five is difficult."""
    truths = []
    for _ in range(num_images):
        corners = rng.integers(0, 30, (rng.integers(0, 4), 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 30, corners.shape)], axis=1)
        classes, counted = rng.integers(0, 3, len(boxes)), rng.random(len(boxes)) > 0.2
        truths.append(GroundTruths(boxes.astype(float), classes, counted, ~counted))
    return truths


def some_detections(rng, truths, noise):
    """Of each object two near it, and some anywhere; some scores tie with other images'."""
    found = []
    for truth in truths:
        near = np.repeat(truth.boxes, 2, axis=0)
        corners = rng.uniform(0, 40, (4, 2))
        boxes = np.concatenate([near + rng.normal(0, noise, near.shape), np.tile(corners, 2) + 9])
        classes = np.concatenate([np.repeat(truth.classes, 2), rng.integers(0, 3, 4)])
        scores = np.round(rng.random(len(boxes)) * 65535) / 65535
        scores[0] = scores[0].round(1)
        found.append(Detections(boxes, scores, classes))
    return found


def evaluate(writer, entry, truths, found):
    """By the project's evaluator, of images that are written for it."""
    for i, truth in enumerate(truths):
        boxes = truth.boxes + [1, 1, 0, 0]
        names = [CLASSES[c] for c in truth.classes]
        marks = [f"<difficult>{int(not counted)}</difficult>" for counted in truth.counted]
        writer.add(f"im{i:04d}", list(zip(names, boxes, marks, strict=True)))
    register_datasets([entry])
    evaluator = PascalVOCEvaluator(entry["name"])
    evaluator.reset()
    for i, detections in enumerate(found):
        output = {"instances": predicted(*detections)}
        evaluator.process([{"image_id": f"im{i:04d}"}], [output])
    return evaluator.evaluate()["bbox"]


@pytest.mark.parametrize("seed", range(3))
def test_a_drawn_set_has_the_evaluators_ap(tmp_path, voc_entry, seed):
    """Repeated images stand beside each other, as copies of files."""
    rng = np.random.default_rng(seed)
    truths = some_truths(rng, 12)
    found = some_detections(rng, truths, noise=1.5)
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=1)
    assert weights.max() > 1 and weights.min() == 0
    of_draw = np.repeat(np.arange(12), weights[0])
    writer = VOCWriter(tmp_path / "drawn")
    entry = {**voc_entry, "root": str(writer.root)}
    expected = evaluate(writer, entry, *([x[i] for i in of_draw] for x in (truths, found)))
    got = metrics(match(truths, found, 3), weights, CLASSES, CLASSES)
    assert {k: float(v[0]) for k, v in got.items()} == pytest.approx(expected, nan_ok=True)
    # The ground truth as it is read back is what was drawn.
    records = [ground_truths(r) for r in load_records(entry["name"])]
    assert [t.counted.tolist() for t in records] == [truths[i].counted.tolist() for i in of_draw]


def plain_ap(truths, found, label, threshold):
    """Average precision in percent by loops; NaN without a ground truth."""
    rows = [
        (-score, image, k)
        for image, detections in enumerate(found)
        for k, score in enumerate(detections.scores)
        if detections.classes[k] == label
    ]
    taken, outcomes = set(), []
    for _, image, k in sorted(rows, key=lambda row: row[0]):
        best, best_iou = None, threshold
        for j in np.flatnonzero(truths[image].classes == label):
            a, b = found[image].boxes[k], truths[image].boxes[j]
            w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            inter = max(w, 0) * max(h, 0)
            iou = inter / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter)
            if iou > best_iou:
                best, best_iou = j, iou
        if best is not None and not truths[image].counted[best]:
            continue
        outcomes.append(best is not None and (image, best) not in taken)
        taken.add((image, best))
    total = sum((t.counted & (t.classes == label)).sum() for t in truths)
    if total == 0:
        return np.nan
    true = np.cumsum(outcomes)
    precision = true / np.arange(1, len(true) + 1) if len(true) else true
    return 100 / total * sum(max(precision[i:]) for i, hit in enumerate(outcomes) if hit)


def plain_metrics(truths, found):
    aps = np.array(
        [[plain_ap(truths, found, c, t / 100) for t in range(50, 100, 5)] for c in range(3)]
    )
    known = aps[~np.isnan(aps).any(axis=1)]
    return {
        "AP": known.mean(), "AP50": known[:, 0].mean(), "AP75": known[:, 5].mean(),
        **{f"AP-{name}": aps[c].mean() for c, name in enumerate(CLASSES)},
    }  # fmt: skip


def test_intervals_are_those_of_plain_numpy():
    """Two seeds in two folds each: what is matched and pooled, drawn and averaged, in loops."""
    rng = np.random.default_rng(0)
    folds = [some_truths(rng, 7), some_truths(rng, 6)]
    truths = sum(folds, [])
    found, matches = {}, {}
    for strategy, noise in (("guided", 1.0), ("static", 2.0)):
        of_seeds = [[some_detections(rng, fold, noise) for fold in folds] for _ in range(2)]
        found[strategy] = [sum(of_folds, []) for of_folds in of_seeds]
        matches[strategy] = [
            pool([match(t, f, 3) for t, f in zip(folds, of_folds, strict=True)])
            for of_folds in of_seeds
        ]
    drawn = [resample(matches[s], CLASSES, CLASSES, draws=16) for s in ("guided", "static")]
    got = compare(*drawn)

    def over_seeds(strategy, images, shares):
        by_seed = [
            plain_metrics([truths[i] for i in images], [detections[i] for i in images])
            for detections in found[strategy]
        ]
        return {k: sum(s * m[k] for s, m in zip(shares, by_seed, strict=True)) for k in by_seed[0]}

    everything = [over_seeds(s, range(13), [0.5, 0.5]) for s in ("guided", "static")]
    images, seeds = draw(13, 2, 16)
    assert images.sum(axis=1).tolist() == [13] * 16
    # Of two seeds one is drawn.
    assert set(map(tuple, seeds.tolist())) == {(0.0, 1.0), (1.0, 0.0)}
    drawn = [
        [over_seeds(s, np.repeat(np.arange(13), w), shares) for s in ("guided", "static")]
        for w, shares in zip(images, seeds, strict=True)
    ]
    for name in ("AP", "AP50", "AP75", *(f"AP-{c}" for c in CLASSES)):
        guided, static = (np.array([pair[i][name] for pair in drawn]) for i in (0, 1))
        difference = (guided - static)[~np.isnan(guided)]
        low, high = np.percentile(difference, [2.5, 97.5])
        assert got[name]["value"] == pytest.approx(everything[0][name], abs=1e-4)
        assert got[name]["difference"] == pytest.approx(
            everything[0][name] - everything[1][name], abs=2e-4
        )
        assert (got[name]["low"], got[name]["high"]) == pytest.approx((low, high), abs=1e-4)
        beyond = min((difference <= 0).sum(), (difference >= 0).sum())
        assert got[name]["p"] == pytest.approx(
            min(1, 2 * (1 + beyond) / (len(difference) + 1)), abs=1e-4
        )
    relative = 100 * (np.array([g["AP"] / s["AP"] for g, s in drawn]) - 1)
    assert got["AP"]["relative_high"] == pytest.approx(np.percentile(relative, 97.5), abs=1e-4)


def test_the_mean_is_over_the_classes_that_are_named():
    rng = np.random.default_rng(0)
    truths = some_truths(rng, 20)
    matches = match(truths, some_detections(rng, truths, 1.0), 3)
    got = metrics(matches, np.ones((1, 20)), CLASSES, ["red", "blue"])
    assert got["AP"] == pytest.approx((got["AP-red"] + got["AP-blue"]) / 2)


def test_a_class_without_objects_has_no_p():
    nothing = np.full(3, np.nan)
    assert set(compare({"x": nothing}, {"x": nothing})["x"].values()) == {None}


def test_what_a_fold_without_objects_finds_is_false_in_all_of_them():
    box = np.array([[0.0, 0, 9, 9]])
    there = GroundTruths(box, np.array([0]), np.array([True]), np.array([False]))
    nothing = GroundTruths(box[:0], *(np.array([], dtype=kind) for kind in (int, bool, bool)))
    folds = [
        match([truth], [Detections(box, np.array([score]), np.array([0]))], 1)
        for truth, score in ((there, 0.5), (nothing, 0.9))
    ]
    ap = metrics(pool(folds), np.ones((1, 2)), ["a"], ["a"])["AP"]
    assert ap == pytest.approx(50)


def test_equal_strategies_do_not_differ():
    rng = np.random.default_rng(0)
    truths = some_truths(rng, 9)
    matches = [match(truths, some_detections(rng, truths, 1.0), 3) for _ in range(3)]
    drawn = resample(matches, CLASSES, CLASSES, draws=20)
    ap = compare(drawn, drawn)["AP"]
    assert (ap["difference"], ap["low"], ap["high"], ap["p"], ap["relative"]) == (0, 0, 0, 1, 0)


def test_matches_go_into_a_file_and_back(tmp_path):
    rng = np.random.default_rng(0)
    truths = some_truths(rng, 40)
    found = some_detections(rng, truths, 1.0)
    there = match(truths, found, 4)  # of the last class there is nothing
    write_matches(tmp_path / "matches.npz", [*CLASSES, "none"], there)
    classes, back = read_matches(tmp_path / "matches.npz")
    assert classes == [*CLASSES, "none"]
    for a, b in zip(there, back, strict=True):
        for column, read in zip(a, b, strict=True):
            np.testing.assert_array_equal(column, read)
    assert {-1, 0, 1} == set(np.concatenate([m.matched for m in back]).ravel())


@pytest.mark.parametrize(("num_images", "expected"), [(1, 20), (3, 50)])
def test_no_more_are_kept_than_can_matter(num_images, expected):
    truths = [GroundTruths(np.array([[0.0, 0, 9, 9]]), np.array([0]), *np.array([[True], [False]]))]
    # Of a class that is in one image of several others have false ones.
    truths += [GroundTruths(*(column[:0] for column in truths[0]))] * (num_images - 1)
    scores = np.linspace(0.1, 0.9, 50)
    boxes = np.tile([0.0, 0, 9, 9], (50, 1))
    found = [Detections(boxes, scores, np.zeros(50, int))]
    found += [Detections(boxes[:0], scores[:0], np.zeros(0, int))] * (num_images - 1)
    (kept,) = match(truths, found, 1)
    assert len(kept.scores) == expected and MOST_FOR_EACH == 20
    assert kept.scores[0] == round(0.9 * 65535) and kept.matched.sum(axis=0).tolist() == [1] * 10
