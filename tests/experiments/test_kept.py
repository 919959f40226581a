"""Finished runs go into the repository and come back elsewhere."""

import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mutual_guidance.errors import ExperimentError
from mutual_guidance.experiments.grid import Cell
from mutual_guidance.experiments.kept import collect_runs, keep, restore
from mutual_guidance.experiments.records import (
    check_folders,
    is_finished,
    note_launch,
    read_launch,
    read_record,
    train_spent_starts,
    write_json,
    write_record,
)
from mutual_guidance.experiments.schema import PLANNED

CONFIG = {"SOLVER.EPOCHS": 2.0, "DATASETS.REGISTER": [{"name": "d"}]}


def cell(strategy="static", fold=1, variant="", start=None):
    place = Path("long", "A", "x", *([variant] if variant else []), strategy)
    folder = Path("out", "mine", place, f"fold_{fold}", "seed_1")
    if variant == "start":
        folder = Path("out", "mine", "long", "A", "x", "start", f"fold_{fold}", "seed_1")
    of_grid = ("long", "configs/A/x.yaml", variant, strategy, fold, 1)
    return Cell(folder, *of_grid, settings=(), start=start)


def finish(root, configs, *cells):
    """Write what a run leaves behind."""
    for c in cells:
        note_launch(root, c, configs)
        folder = root / c.folder
        (folder / "metrics.json").write_text('{"iteration": 0, "time": 3.2, "bbox/AP": 5.0}\n')
        ap = {"d": {"bbox": {"AP": 5.0 + c.fold}}}
        (folder / "evaluation.json").write_text(json.dumps(ap))
        zipfile.ZipFile(folder / "model_final.pth", "w").close()
        (folder / "matches.npz").write_text(f"of fold {c.fold}")
        write_record(root, c, 1, 16, "cpu")


def kept_results(root, cells, name="mine", **plan):
    """Keep what has finished below root in root / docs."""
    runs, launched = collect_runs(root, cells)
    rows = [{"metrics": {}, "bootstrap": {}}]
    result = {"experiment": name, "launched": launched, "rows": rows, "runs": runs, **plan}
    write_json(root / "out" / "mine" / "results.json", result)
    return keep(root / "out" / "mine" / "results.json", root / "docs")


def test_finished_runs_come_back_elsewhere(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    cells = [cell(fold=1), cell("mutual_guidance", fold=1), cell(fold=2)]
    configs = {c: {**CONFIG, "SEED": i} for i, c in enumerate(cells)}
    finish(here, configs, *cells[:2])
    result = kept_results(here, cells, questions={})
    # What the runs have in common stands there once.
    assert result["launched"] == {f"config/{key}": value for key, value in CONFIG.items()}
    assert [run["launched"] for run in result["runs"]] == [{"config/SEED": 0}, {"config/SEED": 1}]

    shutil.copytree(here / "docs", there / "docs")
    restore(there, there / "docs" / "mine.json", configs)
    assert [is_finished(there, c) for c in cells] == [True, True, False]
    for c in cells[:2]:
        assert read_record(there, c) == read_record(here, c)
        assert read_launch(there, c) == read_launch(here, c)
        assert (there / c.folder / "matches.npz").read_text() == "of fold 1"
    finish(there, configs, cells[2])
    assert len(kept_results(there, cells, questions={})["runs"]) == 3
    assert len(list((there / "docs" / "mine").glob("**/*.npz"))) == 3


def test_a_run_is_compared_as_the_experiment_says_now(tmp_path):
    before, static = cell("mutual_guidance", variant="v"), cell(variant="v")
    before = replace(before, baseline="")
    finish(tmp_path, {before: CONFIG}, before)
    now = replace(before, baseline="v")  # "static" has been added to the variant's strategies
    (run,), _ = collect_runs(tmp_path, [now, static])
    assert (read_record(tmp_path, now)["baseline"], run["baseline"]) == ("", "v")


def test_what_an_interrupted_run_found_goes_with_it(tmp_path):
    c = cell()
    finish(tmp_path, {c: CONFIG}, c)
    kept_results(tmp_path, [c])  # without a plan, without matches
    folder = tmp_path / c.folder
    (folder / "record.json").unlink()
    (folder / "detections").mkdir()
    (folder / "detections" / "d.npz").write_text("of a training that is half done")
    restore(tmp_path, tmp_path / "docs" / "mine.json", {c: CONFIG})
    assert is_finished(tmp_path, c) and not list(folder.glob("**/*.npz"))
    (folder / "matches.npz").write_text("of the run before")
    note_launch(tmp_path, c, {c: CONFIG})
    assert not (folder / "matches.npz").exists()


def test_matches_and_their_intervals_are_kept_of_a_plan_only(tmp_path):
    cells = [cell(fold=1)]
    finish(tmp_path, {cells[0]: CONFIG}, *cells)
    assert kept_results(tmp_path, cells)["rows"] == [{"metrics": {}}]
    assert not list((tmp_path / "docs").glob("**/*.npz"))
    assert kept_results(tmp_path, cells, questions={})["rows"] == [{"metrics": {}, "bootstrap": {}}]
    assert len(list((tmp_path / "docs").glob("**/*.npz"))) == 1


def test_what_is_kept_is_not_lost_to_fewer_runs(tmp_path):
    cells = [cell(fold=1), cell(fold=2)]
    finish(tmp_path, dict.fromkeys(cells, CONFIG), *cells)
    kept_results(tmp_path, cells)
    with pytest.raises(ExperimentError, match=r"lacks 1 runs that .*mine.json keeps, as .*fold_2"):
        kept_results(tmp_path, cells[:1])
    # A name with a dot is another one.
    assert kept_results(tmp_path, cells[:1], name="mine.v2")["experiment"] == "mine.v2"
    kept = {path.name for path in (tmp_path / "docs").iterdir()}
    assert kept == {"mine.json", "mine.v2.json"}


def test_a_run_that_finished_here_stays(tmp_path):
    c = cell()
    finish(tmp_path, {c: CONFIG}, c)
    kept_results(tmp_path, [c])
    record = tmp_path / c.folder / "record.json"
    record.write_text(record.read_text().replace('"AP": 6.0', '"AP": 7.0'))
    restore(tmp_path, tmp_path / "docs" / "mine.json", {c: CONFIG})
    assert read_record(tmp_path, c)["metrics"] == {"AP": 7.0}


def test_a_kept_run_of_another_config_is_refused(tmp_path):
    c = cell()
    finish(tmp_path, {c: CONFIG}, c)
    kept_results(tmp_path, [c])
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(ExperimentError, match=r"mine.json holds a run with SOLVER.EPOCHS 2.0 wh"):
        restore(tmp_path, tmp_path / "docs" / "mine.json", {c: {**CONFIG, "SOLVER.EPOCHS": 3.0}})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "before", "now"), [("seeds", [1], [2]), ("protocols", {"long": {}}, {"longer": {}})]
)
def test_a_plan_of_another_grid_is_refused(tmp_path, key, before, now):
    old = cell()
    new = replace(old, folder=old.folder.parent / "seed_2", seed=2)
    asked = {"primary": {"metric": "AP"}, **dict.fromkeys(PLANNED[1:], {})}
    plans = [{**CONFIG, **asked, key: value} for value in (before, now)]
    finish(tmp_path, {old: plans[0]}, old)
    kept_results(tmp_path, [old])
    message = re.escape(f"holds a run with {key} {before} where the experiment has {now}")
    with pytest.raises(ExperimentError, match=f"fold_1/seed_1 {message}"):
        check_folders(tmp_path, {new: plans[1]})
    with pytest.raises(ExperimentError, match=f"mine.json {message}"):
        restore(tmp_path, tmp_path / "docs" / "mine.json", {new: plans[1]})
    check_folders(tmp_path, {new: plans[0]})  # of the same plan


def test_a_start_comes_back_only_if_no_run_needs_its_weights(tmp_path):
    start = cell(variant="start")
    run = replace(cell(), start=start)
    configs = {start: CONFIG, run: CONFIG}
    finish(tmp_path, configs, start)
    kept_results(tmp_path, [start, run])
    shutil.rmtree(tmp_path / "out")
    restore(tmp_path, tmp_path / "docs" / "mine.json", configs)
    assert not is_finished(tmp_path, start)
    finish(tmp_path, configs, run)
    restore(tmp_path, tmp_path / "docs" / "mine.json", configs)
    train_spent_starts(tmp_path, configs)
    assert is_finished(tmp_path, start)
    # A run that is added later needs the weights.
    train_spent_starts(tmp_path, {**configs, replace(cell("mutual_guidance"), start=start): CONFIG})
    assert is_finished(tmp_path, run) and not is_finished(tmp_path, start)


def test_results_kept_before_their_configs_were_are_left_alone(tmp_path):
    c = cell()
    old = {key: value for key, value in vars(c).items() if key not in ("folder", "start")}
    write_json(tmp_path / "mine.json", {"experiment": "mine", "runs": [old]})
    restore(tmp_path, tmp_path / "mine.json", {c: CONFIG})
    restore(tmp_path, tmp_path / "none.json", {c: CONFIG})
    assert not is_finished(tmp_path, c)


def test_torn_results_are_named(tmp_path):
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(ExperimentError, match=r"mine.json is no results.json of an experiment"):
        restore(tmp_path, tmp_path / "mine.json", {cell(): CONFIG})
