import csv
import io
import math

import numpy as np
import pytest

from mutual_guidance.experiments.report import (
    markdown,
    paired_difference,
    summarize,
    to_csv,
)
from mutual_guidance.experiments.student import T_975


def record(strategy, seed, ap, variant="", protocol="long", baseline="", **metrics):
    return {
        "protocol": protocol,
        "config": "configs/A/x.yaml",
        "variant": variant,
        "strategy": strategy,
        "baseline": None if strategy == "static" else baseline,
        "seed": seed,
        "metrics": {"AP": ap, "AP50": 2 * ap, "AP75": ap / 2, **metrics},
        "history": [],
    }


@pytest.mark.parametrize("freedom", range(1, len(T_975) + 1))
def test_quantiles_are_students(freedom):
    # P(|T| < t) by the substitution x = sqrt(df) tan(u), under which the density becomes
    # proportional to cos(u) ** (df - 1).
    u = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(u) ** (freedom - 1)
    inside = u <= math.atan(T_975[freedom - 1] / math.sqrt(freedom))
    assert density[inside].sum() / density.sum() == pytest.approx(0.95, abs=2e-4)


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, half width 4.303 / sqrt(3) = 2.484.
    got = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    assert got["difference"] == 2.0
    assert got["low"] == pytest.approx(2 - 2.4843, abs=1e-3)
    assert got["high"] == pytest.approx(2 + 2.4843, abs=1e-3)
    assert paired_difference([3.0], [1.0]) == {"difference": 2.0, "low": None, "high": None}


def test_rows_pair_by_seed_whatever_the_order():
    records = [
        record("static", 1, 10.0),
        record("static", 2, 20.0),
        record("static", 3, 30.0),
        record("mutual_guidance", 3, 33.0),
        record("mutual_guidance", 1, 11.0),
    ]
    static, guided = summarize(records, {})
    assert static["seeds"] == [1, 2, 3] and guided["seeds"] == [1, 3]
    assert static["metrics"]["AP"] == {"mean": 20.0, "std": 10.0, "count": 3}
    ap = guided["metrics"]["AP"]
    assert ap["mean"] == 22.0 and ap["difference"] == 2.0  # of (1, 3) alone
    # Differences 1 and 3: deviation 1.4142, half width 12.706 * 1.4142 / 1.4142.
    assert ap["high"] == pytest.approx(2 + 12.706, abs=1e-3)
    assert (ap["count"], ap["pairs"]) == (2, 2)


def test_figures_of_fewer_seeds_say_so():
    records = [record("static", s, 10.0 * s) for s in (1, 2)]
    records += [record("mutual_guidance", s, 10.0 * s + 1) for s in (1, 2, 3)]
    del records[4]["metrics"]["AP75"]
    row = markdown(summarize(records, {})).splitlines()[5]
    cells = [c.strip() for c in row.split("|")[1:-1]]
    assert cells[3] == "21.0 ± 10.0" and cells[5] == "8.0 ± 3.5 [2 of 3]"
    assert cells[6] == "+1.0 (+1.0 to +1.0) [2 of 3]"


def test_baseline_is_of_the_variant_where_it_has_one():
    records = [
        record("static", 1, 10.0, variant="start"),
        record("static", 1, 20.0),
        record("mutual_guidance", 1, 21.0),
        record("static", 1, 30.0, variant="gamma_1"),
        record("mutual_guidance", 1, 32.0, variant="gamma_1", baseline="gamma_1"),
        record("mutual_guidance", 1, 25.0, variant="sigma_3"),
        record("mutual_guidance", 1, 99.0, protocol="warm"),
    ]
    rows = summarize(records, {})
    differences = [row["metrics"]["AP"].get("difference") for row in rows]
    assert differences == [None, None, 1.0, None, 2.0, 5.0, None]
    # Without the static run that belongs to it a variant is not compared with another one.
    del records[3]
    differences = [row["metrics"]["AP"].get("difference") for row in summarize(records, {})]
    assert differences == [None, None, 1.0, None, 5.0, None]


def test_class_without_ground_truth_is_left_out():
    records = [record("static", 1, 10.0, **{"AP-a": None}), record("static", 2, 10.0)]
    assert summarize(records, {})[0]["metrics"]["AP-a"] == {"mean": None, "std": None, "count": 0}


def test_tables():
    paper = {
        "source": "Table 1",
        "metrics": ["AP", "AP50", "AP75"],
        "figures": {"configs/A/x.yaml": {"static": [50.3, 75.5, 53.7]}},
    }
    records = [
        record("static", 1, 10.0, APs=5.0),
        record("static", 2, 12.0, APs=5.0),
        record("mutual_guidance", 1, 11.0, APs=6.0),
        record("mutual_guidance", 2, 15.0, APs=6.0),
    ]
    rows = summarize(records, paper)
    lines = [[c.strip() for c in x.split("|")[1:-1]] for x in markdown(rows, "Table 1").split("\n")]
    assert lines[2] == [
        "config", "strategy", "runs", "AP", "AP50", "AP75", "APs", "ΔAP", "ΔAP50", "ΔAP75",
        "paper, Table 1: AP / AP50 / AP75",
    ]  # fmt: skip
    assert lines[4] == [
        "A/x", "static", "2", "11.0 ± 1.4", "22.0 ± 2.8", "5.5 ± 0.7", "5.0 ± 0.0", "", "", "",
        "50.3 / 75.5 / 53.7",
    ]  # fmt: skip
    # Differences 1 and 3: 2 +- 12.706 * 1.4142 / 1.4142.
    assert lines[5][7] == "+2.0 (-10.7 to +14.7)" and lines[5][10] == ""
    by_metric = {(r["strategy"], r["metric"]): r for r in csv.DictReader(io.StringIO(to_csv(rows)))}
    assert len(by_metric) == 8
    assert by_metric["static", "AP"]["paper"] == "50.3"
    assert by_metric["mutual_guidance", "APs"]["difference"] == "1.0"


def test_one_seed_has_neither_deviation_nor_interval():
    records = [record("static", 1, 10.0), record("mutual_guidance", 1, 10.6)]
    (row,) = [x for x in markdown(summarize(records, {})).splitlines() if "| mutual_guidance" in x]
    assert "10.6 " in row and "±" not in row and "+0.6 (n/a)" in row


def test_misalignment_and_the_last_labels_have_tables():
    lost = {"misalignment/iou_lost_before": 0.2}
    records = [record("static", 1, 10.0, **lost), record("mutual_guidance", 1, 11.0, **lost)]
    for share, r in zip((1.0, 0.5), records, strict=True):
        r["history"] = [
            {"iteration": 10, "AP": 1.0, "assignment/cls_as_static": 0.1},
            {"iteration": 20, "AP": 2.0, "assignment/cls_as_static": share},
        ]
    rows = summarize(records, {})
    assert rows[1]["metrics"]["assignment/cls_as_static"] == {
        "mean": 0.5, "std": None, "count": 1,
        "difference": -0.5, "low": None, "high": None, "pairs": 1,
    }  # fmt: skip
    tables = [x.splitlines() for x in markdown(rows).split("\n\n") if x.startswith("|")]
    cells = [[[c.strip() for c in line.split("|")[1:-1]] for line in lines] for lines in tables]
    assert cells[1][0][3:] == ["IoU lost", "rank correlation", "suppressed"]
    assert cells[1][3] == ["A/x", "mutual_guidance", "1", "0.200, Δ +0.000 (n/a)", "", ""]
    assert cells[2][3][3:5] == ["0.500", ""]


def test_a_metric_that_some_seeds_lack_is_of_the_others():
    records = [record("static", 1, 10.0), record("static", 2, 12.0, APs=5.0)]
    metrics = summarize(records, {})[0]["metrics"]
    assert (
        metrics["APs"] == {"mean": 5.0, "std": None, "count": 1} and metrics["AP"]["mean"] == 11.0
    )


def test_few_classes_have_a_table():
    records = [record("static", 1, 10.0, **{"AP-a b": 3.0}), record("mutual_guidance", 1, 11.0)]
    records[1]["metrics"]["AP-a b"] = 4.5
    text = markdown(summarize(records, {}))
    assert "| a b " in text and "| 3.0 " in text and "| 4.5, Δ +1.5 (n/a) |" in text
    for r in records:
        r["metrics"].update({f"AP-{i}": 1.0 for i in range(10)})
    assert "a b" not in markdown(summarize(records, {}))


def test_data_sets_have_tables_of_their_own_classes():
    records = [
        record("static", 1, 10.0, **{"AP-a": 3.0}),
        record("static", 1, 10.0, **{"AP-b": 4.0}),
    ]
    records[1]["config"] = "configs/B/y.yaml"
    tables = [x for x in markdown(summarize(records, {})).split("\n\n") if x.startswith("|")]
    assert "| a " in tables[1] and "A/x" in tables[1] and "B/y" not in tables[1]
    assert "| b " in tables[2] and "B/y" in tables[2] and "A/x" not in tables[2]
