import math
from pathlib import Path

import pytest

from mutual_guidance.experiments.decision import answer, holm, power, verdict
from mutual_guidance.experiments.grid import Cell
from mutual_guidance.experiments.page import verdict_section
from mutual_guidance.experiments.report import IN_MEAN
from mutual_guidance.experiments.student import T_975, quantile, two_sided_p

PLACE = {"config": "configs/A/x.yaml", "variant": "", "strategy": "mutual_guidance"}
QUESTIONS = {
    "primary": {"claim": "it helps", "metric": "AP", "classes": ["a", "b"], **PLACE},
    "decision": {"paper_gain": 4.0},
    "secondary": [{"metric": "AP75", **PLACE}, {"metric": "misalignment/x", **PLACE}],
}


VARIANT = {**PLACE, "variant": "half", "strategy": "localize_to_classify"}


def cells(place):
    """Of two seeds, in the order in which they run."""
    return [
        Cell(Path(), "long", seed=s, fold=None, settings=(), baseline=b, **{**place, **change})
        for s in (1, 2)
        for b, change in ((None, {"strategy": "static", "variant": ""}), ("", {}))
    ]


CELLS = [*cells(PLACE), *cells(VARIANT)[1::2]]
PLACES = [cell.place for cell in CELLS]


def row(bootstrap, metrics):
    return {**PLACE, "metrics": metrics, "bootstrap": {"metrics": bootstrap, "seeds": [1, 2]}}


# Of five pairs: t = 1 / 0.5 * 2.776 = 5.552, p = 0.0052.
FIVE = {"mean": 6.0, "difference": 1.0, "low": 0.5, "high": 1.5, "pairs": 5}
BOTH = {"AP": FIVE, "AP75": FIVE}


def interval(low, high, p=0.5):
    difference = (low + high) / 2
    return {
        "value": 50 + difference, "baseline": 50.0, "difference": difference,
        "low": low, "high": high, "p": p,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        # The paper's gain is 4 % of 50, that is 2.
        (0.1, 3.0, "confirmed"),
        (0.1, 1.9, "confirmed, but less than the paper's gain"),
        (0.0, 3.0, "undecided"),
        (-0.5, 2.0, "undecided"),
        (-0.5, 1.9, "refuted: less than the paper's gain"),
        (-3.0, -1.0, "refuted: less than the paper's gain"),
        (None, None, "undecided"),
    ],
)
def test_the_rule(low, high, expected):
    assert verdict({"low": low, "high": high, "baseline": 50.0}, 4.0) == expected


def test_nothing_is_said_before_all_runs_have_finished():
    rows = [row({"AP": interval(1.0, 2.0)}, {})]
    assert answer(QUESTIONS, rows, CELLS, PLACES[:3]) == {"state": "running: 3 of 4 runs"}


@pytest.mark.parametrize(
    ("low", "high", "expected", "span", "found"),
    [
        (0.5, 3.5, "confirmed", [0.5, 3.5], "; both intervals together +0.5 to +3.5 AP"),
        (-0.5, 3.5, "undecided", [-0.5, 3.5], "; both intervals together -0.5 to +3.5 AP"),
        (1.2, 2.4, "confirmed", None, ""),
        (None, None, "undecided", [None, None], "; no t-interval"),
    ],
)
def test_both_intervals_have_to_say_it(low, high, expected, span, found):
    runs = {"mean": 51.5, "difference": 1.5, "low": low, "high": high, "pairs": 4}
    rows = [row({"AP": interval(1.0, 2.5)}, {"AP": runs})]
    got = answer(QUESTIONS, rows, CELLS, PLACES)
    assert got["state"] == expected
    assert (got["primary"]["low"], got["primary"]["high"]) == (1.0, 2.5)
    assert got["primary"].get("span") == span
    questions = {"primary": {**QUESTIONS["primary"], "claim": "it helps"}}
    section = verdict_section({"answer": got, "questions": questions}).splitlines()[0]
    assert section.endswith(f"AP +1.8 (+1.0 to +2.5){found}")


@pytest.mark.parametrize(("low", "p"), [(0.5, 0.03), (-0.5, 0.122)])
def test_the_larger_p_counts(low, p):
    # Of nine pairs: t = 1.5 / 1 * 2.306 = 3.46, p = 0.009; t = 1.5 / 2 * 2.306 = 1.73, p = 0.122.
    runs = {"mean": 51.5, "difference": 1.5, "low": low, "high": 3.0 - low, "pairs": 9}
    bootstrap = {"AP": interval(1.0, 2.0), "AP75": interval(0.1, 2.1, p=0.03)}
    rows = [row(bootstrap, {"AP": runs, "AP75": runs})]
    ap75 = answer(QUESTIONS, rows, CELLS, PLACES)["secondary"][0]
    assert ap75["p"] == pytest.approx(p, abs=1e-3)


def test_a_secondary_comparison_may_come_later():
    questions = {**QUESTIONS, "secondary": [{"metric": "AP", **VARIANT}, *QUESTIONS["secondary"]]}
    rows = [row({"AP": interval(1.0, 2.0), "AP75": interval(0.1, 2.1, p=0.03)}, BOTH)]
    got = answer(questions, rows, CELLS, PLACES[:5])
    assert got["state"] == "confirmed"
    later, ap75, _ = got["secondary"]
    assert (later["interval"], later["p_holm"]) == ("running: 3 of 4 runs", None)
    assert (ap75["interval"], ap75["p_holm"]) == ("bootstrap", pytest.approx(3 * 0.03))


def test_the_primary_decides_and_the_secondary_are_corrected():
    bootstrap = {"AP": interval(0.5, 3.5), "AP75": interval(0.1, 2.1, p=0.03)}
    got = answer(QUESTIONS, [row(bootstrap, {**BOTH, "misalignment/x": FIVE})], CELLS, PLACES)
    assert got["state"] == "confirmed"
    assert got["primary"]["difference"] == 2.0 and got["primary"]["interval"] == "bootstrap"
    ap75, other = got["secondary"]
    assert (ap75["p"], ap75["p_holm"]) == (0.03, 0.03)
    assert other["p"] == pytest.approx(0.0052, abs=1e-4) and other["interval"] == "t"
    assert other["p_holm"] == pytest.approx(2 * other["p"])
    assert other["relative"] == pytest.approx(20.0)


def test_a_mean_over_some_classes_decides_where_the_runs_have_it():
    # The last are of another data set, of which nothing was said.
    for classes, state in (("ab", "confirmed"), ("abc", "undecided"), ("xyz", "confirmed")):
        of_classes = {f"AP-{name}": FIVE for name in classes}
        got = answer(QUESTIONS, [row({}, {"AP": FIVE, **of_classes})], CELLS, PLACES)
        assert got["state"].startswith(state)
    of_classes = {f"AP-{name}": FIVE for name in "abc"}
    rows = [row({"AP": interval(0.5, 2.0)}, {**BOTH, **of_classes, IN_MEAN: FIVE})]
    got = answer(QUESTIONS, rows, CELLS, PLACES)
    assert got["state"] == "confirmed" and got["secondary"][0]["p"] is None


def test_a_metric_that_was_not_measured_is_undecided():
    got = answer(QUESTIONS, [row({}, {})], CELLS, PLACES)
    assert got["state"] == "undecided" and got["secondary"][0]["p_holm"] is None


def test_lost_detections_do_not_change_the_rule():
    rows = [{**row({}, {"AP": FIVE, "AP75": FIVE, "misalignment/x": FIVE}), "unmatched": 3}]
    got = answer(QUESTIONS, rows, CELLS, PLACES)
    assert got["state"] == "undecided"
    assert got["primary"]["interval"] == "none: 3 runs without their detections"
    assert [c["interval"] for c in got["secondary"]] == [got["primary"]["interval"], "t"]


def test_holm_by_hand():
    # Sorted: 0.01 * 5, 0.02 * 4, 0.03 * 3, 0.2 * 2.
    assert holm([0.03, None, 0.01, 0.2, 0.02]) == pytest.approx([0.09, None, 0.05, 0.4, 0.08])
    assert holm([0.01, 0.011]) == pytest.approx([0.02, 0.02])  # never below the one before
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("freedom", [1, 4, 11, 30])
def test_p_belongs_to_the_quantiles(freedom):
    assert two_sided_p(T_975[freedom - 1], freedom) == pytest.approx(0.05, abs=1e-4)
    assert two_sided_p(-T_975[freedom - 1], freedom) == pytest.approx(0.05, abs=1e-4)
    assert two_sided_p(0.0, freedom) == pytest.approx(1.0)
    assert two_sided_p(1e5, freedom) < 1e-5
    assert quantile(freedom) == T_975[freedom - 1] and quantile(99) == T_975[-1]


def test_power_by_hand():
    def static(fold, ap, strategy="static", protocol="long"):
        metrics = {"AP": 1.0, "AP-a": ap - 1, "AP-b": ap + 1, "AP-c": 99.0}
        place = {"protocol": protocol, "config": "c", "variant": "", "strategy": strategy}
        return {**place, "fold": fold, "metrics": metrics}

    records = [static(1, 50), static(1, 52), static(2, 60), static(2, 62)]
    got = power(QUESTIONS, [*records, static(1, 0, "mutual_guidance")], pairs=8)
    # Within folds 4 * 1 over 4 - 2 degrees of freedom; 8 pairs; (2.365 + 0.896) * sqrt(2 / 8 * 2).
    assert got["spread"] == pytest.approx(math.sqrt(2)) and got["mean"] == 56
    assert got["difference"] == pytest.approx(3.261 * math.sqrt(0.5))
    assert power(QUESTIONS, records[::2], pairs=8) is None
    others = [static(1, 40, protocol="half"), static(2, 50, protocol="half")]
    assert power(QUESTIONS, [*records[::2], *others], pairs=8) is None
    own = [{**record, "config": PLACE["config"]} for record in records[:2]]
    assert power(QUESTIONS, [*records, *own], pairs=8)["runs"] == 2
