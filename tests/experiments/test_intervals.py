"""From the folders of runs to the intervals of a row."""

import ast
from pathlib import Path

import numpy as np
import pytest
import yaml

from mutual_guidance.data import register_datasets
from mutual_guidance.evaluation.detections import Detections, write_detections
from mutual_guidance.evaluation.ground_truth import ground_truths, load_records
from mutual_guidance.experiments.bootstrap import compare, metrics, resample
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.experiments.intervals import Intervals
from mutual_guidance.experiments.matches import match, pool
from mutual_guidance.experiments.plan import Plan
from mutual_guidance.experiments.records import write_json
from mutual_guidance.experiments.report import summarize
from tests.conftest import CLASSES


@pytest.fixture
def plans(voc, voc_entry, tmp_path):
    """Of two folds of twelve images, two seeds and two strategies, registered."""
    rng = np.random.default_rng(0)
    for i in range(12):
        corners = rng.integers(1, 30, (3, 2))
        boxes = np.concatenate([corners, corners + rng.integers(8, 30, (3, 2))], axis=1)
        voc.add(f"im{i}", list(zip(CLASSES, boxes.tolist(), strict=True)))
    content = {
        "configs": ["configs/A/x.yaml"],
        "strategies": ["static", "mutual_guidance"],
        "seeds": [1, 2],
        "folds": {"number": 2, "seed": 1, "dataset": {**voc_entry, "split": ["train"]}},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    cells = load_experiment(tmp_path / "mine.yaml", Path("out")).cells
    plans = {}
    for cell in cells:
        settings = dict(zip(cell.settings[::2], cell.settings[1::2], strict=True))
        register_datasets(ast.literal_eval(settings["DATASETS.REGISTER"]))
        config = {"DATASETS.TEST": ast.literal_eval(settings["DATASETS.TEST"])}
        plans[cell] = Plan(1, 1, 0.0, config=config)
    return plans


def finish(root, plans, cells):
    """Write what runs leave behind; return their records and their matches."""
    rng = np.random.default_rng(1)
    records_of, found = {}, {}
    for cell in cells:
        dataset = plans[cell].config["DATASETS.TEST"][0]
        records = load_records(dataset)
        truths = [ground_truths(r) for r in records]
        noise = 2.0 if cell.strategy == "static" else 1.0
        detections = [
            Detections(
                (t.boxes + rng.normal(0, noise, t.boxes.shape)).clip(0),
                np.round(rng.random(len(t.boxes)), 3),
                t.classes,
            )
            for t in truths
        ]
        folder = root / cell.folder
        by_id = dict(zip((r.image_id for r in records), detections, strict=True))
        write_detections(folder / "detections" / f"{dataset}.npz", by_id)
        found[cell] = match(truths, detections, 3)
        everything = np.ones((1, len(records)))
        printed = metrics(found[cell], everything, CLASSES, CLASSES)
        place = ("protocol", "config", "variant", "strategy", "baseline", "fold", "seed")
        record = {key: getattr(cell, key) for key in place}
        record["metrics"] = {name: round(float(v[0]), 4) for name, v in printed.items()}
        records_of[cell] = {**record, "history": []}
        write_json(folder / "record.json", records_of[cell])
    return list(records_of.values()), found


def rows_of(records, root, plans, in_mean=()):
    """With their intervals."""
    rows = summarize(records, {})
    Intervals(root, plans, list(in_mean)).add(rows)
    return rows


def test_rows_get_the_interval_of_all_folds_and_seeds(plans, tmp_path):
    records, found = finish(tmp_path, plans, plans)
    static, guided = rows_of(records, tmp_path, plans, ["red", "green"])
    assert "bootstrap" not in static
    got = guided["bootstrap"]
    assert (got["images"], got["seeds"], got["in_mean"]) == (12, [1, 2], ["red", "green"])
    drawn = [
        resample(
            [
                pool([m for c, m in found.items() if c.seed == seed and c.strategy == strategy])
                for seed in (1, 2)
            ],
            CLASSES,
            ["red", "green"],
        )
        for strategy in ("mutual_guidance", "static")
    ]
    # Boxes and scores were rounded to 16 bits.
    assert got["rounding"] < 0.05
    for name, summary in compare(*drawn).items():
        assert got["metrics"][name] == pytest.approx(summary, abs=0.1), name


def test_the_matches_of_a_run_are_kept_and_read_again(plans, tmp_path):
    records, _ = finish(tmp_path, plans, plans)
    first = rows_of(records, tmp_path, plans)[1]["bootstrap"]
    assert first["in_mean"] == CLASSES
    for path in tmp_path.glob("out/**/detections/*.npz"):
        path.unlink()
    assert rows_of(records, tmp_path, plans)[1]["bootstrap"] == first


def test_a_row_without_the_classes_that_are_asked_for_has_the_mean_of_its_own(plans, tmp_path):
    records, _ = finish(tmp_path, plans, plans)
    rows = rows_of(records, tmp_path, plans, ["red", "of another data set"])
    assert rows[1]["bootstrap"]["in_mean"] == CLASSES


def test_damaged_detections_are_as_good_as_lost(plans, tmp_path):
    records, _ = finish(tmp_path, plans, plans)
    next(tmp_path.glob("out/**/static/**/detections/*.npz")).write_bytes(b"")
    assert rows_of(records, tmp_path, plans)[1]["unmatched"] == 1


@pytest.mark.parametrize("lost", ["detections/*.npz", "record.json"])
def test_a_run_that_is_not_there_leaves_its_row_without(plans, tmp_path, lost):
    records, _ = finish(tmp_path, plans, plans)
    next(tmp_path.glob(f"out/**/static/**/{lost}")).unlink()
    rows = rows_of(records, tmp_path, plans)
    assert not any("bootstrap" in row for row in rows)
    assert [row.get("unmatched") for row in rows] == [None, 1 if "npz" in lost else None]


@pytest.mark.parametrize("strategies", [["static"], ["static", "mutual_guidance"]])
def test_every_finished_run_leaves_its_matches_while_others_are_missing(
    plans, tmp_path, strategies
):
    done = [c for c in plans if (c.fold, c.seed) == (1, 1) and c.strategy in strategies]
    records, _ = finish(tmp_path, plans, done)
    rows_of(records, tmp_path, plans)
    assert len(done) == len(strategies)
    assert all((tmp_path / cell.folder / "matches.npz").is_file() for cell in done)
