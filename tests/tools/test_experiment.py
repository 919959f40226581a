"""The tool from its command line; tests/experiments has its parts."""

import argparse
import json
import os
import statistics
from pathlib import Path

import pytest
import yaml

from mutual_guidance.engine import precision
from mutual_guidance.errors import ConfigError, ExperimentError, OutputError
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.experiments.plan import make_plans
from mutual_guidance.experiments.records import note_launch, write_json
from tests.conftest import REPOSITORY, load_script

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The script, with its output and what is kept of it below tmp_path."""
    module = load_script("tools/experiment.py")
    monkeypatch.chdir(REPOSITORY)  # where the tool goes
    monkeypatch.setattr(module, "OUTPUT", tmp_path / "out")
    monkeypatch.setattr(module, "KEPT", tmp_path / "kept")  # of runs in other folders
    return module


@pytest.fixture
def experiment(voc, voc_entry, tmp_path):
    """An experiment on two drawn images: a start of one iteration, and five of one strategy."""
    voc.add("a", [("red", (3, 5, 24, 40)), ("blue", (34, 34, 60, 58))])
    voc.add("b", [("green", (10, 15, 50, 35))])
    content = {
        "configs": ["configs/Shapes/retinanet_R_18.yaml"],
        "strategies": ["mutual_guidance"],
        "seeds": [1],
        "overrides": {
            "DATASETS.REGISTER": [voc_entry],
            "DATASETS.TRAIN": [voc_entry["name"]],
            "DATASETS.TEST": [voc_entry["name"]],
            "INPUT.SQUARE_SIZE": 64,
            "SOLVER.IMS_PER_BATCH": 2,
            "SOLVER.EPOCHS": 5.0,
            "TEST.EVAL_PERIOD": 4,
            "TEST.PRECISE_BN.ENABLED": True,
            "TEST.PRECISE_BN.NUM_ITER": 1,
            "DATALOADER.NUM_WORKERS": 0,
        },
        "protocols": {"warm": {"start": {"SOLVER.EPOCHS": 1.0}}},
    }
    path = tmp_path / "drawn.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def call(tool, capsys):
    """Calls the script with the arguments; what it prints."""

    def call(*args):
        tool.main([*map(str, args)])
        return capsys.readouterr().out

    return call


def test_runs_resumes_and_tabulates(call, experiment, tmp_path):
    listing = call(experiment, "--dry-run")
    rows = [line.split(maxsplit=1)[1] for line in listing.splitlines() if "seed_1" in line]
    assert [" ".join(row.split()) for row in rows] == ["1 2 unknown to do", "5 2 unknown to do"]
    assert not (tmp_path / "out").exists()

    out = call(experiment)
    assert "| Shapes/retinanet_R_18 |" in out and "not finished" not in out
    result = json.loads((tmp_path / "out/drawn/results.json").read_text())
    assert result["missing"] == [] and [run["variant"] for run in result["runs"]] == ["start", ""]
    start, run = result["runs"]
    assert (start["iterations"], run["iterations"]) == (1, 5)
    assert [point["iteration"] for point in run["history"]] == [4, 5]
    assert run["training_hours"] > 0 and run["environment"]["torch"]
    log = tmp_path / "out/drawn/warm/Shapes/retinanet_R_18/mutual_guidance/seed_1/train_net.log"
    assert "start/seed_1/model_final.pth" in log.read_text()

    records = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/**/record.json")}
    assert len(records) == 2
    assert call(experiment) == out
    assert {p: p.stat().st_mtime_ns for p in records} == records
    listing = call(experiment, "--dry-run")
    assert listing.count("finished") == 2 and "unknown" not in listing and "Left" not in listing

    (tmp_path / "out/drawn/warm/Shapes/retinanet_R_18/mutual_guidance/seed_1/record.json").unlink()
    listing = call(experiment, "--dry-run")
    # All iterations are done, only the record is missing.
    assert "Left" not in listing and listing.count("to do") == 1
    (metrics,) = tmp_path.glob("out/**/mutual_guidance/seed_1/metrics.json")
    metrics.write_text('{"iteration": 2, "time": 3600.0}\n')
    listing = call(experiment, "--dry-run")
    # 5 - 3 iterations, of an hour each.
    assert "Left: 2.0 hours of training" in listing

    experiment.write_text(experiment.read_text().replace("EPOCHS: 5.0", "EPOCHS: 3.0"))
    with pytest.raises(
        ExperimentError, match=r"SOLVER.EPOCHS 5.0 where .* 3.0: delete what is old"
    ):
        call(experiment)


def test_a_machine_without_bfloat16_is_told_before_the_runs(tool, experiment, monkeypatch, capsys):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    dry_run = [str(experiment), "--dry-run"]
    tool.main(dry_run)
    assert "warning" not in capsys.readouterr().err
    content = yaml.safe_load(experiment.read_text())
    content["overrides"]["SOLVER.AMP.PRECISION"] = "bfloat16"
    experiment.write_text(yaml.safe_dump(content))
    tool.main(dry_run)
    err = capsys.readouterr().err
    assert err.count("warning: SOLVER.AMP.PRECISION bfloat16: this device") == 1


def test_a_precision_that_needs_a_gpu_stops_before_anything_is_written(call, experiment, tmp_path):
    content = yaml.safe_load(experiment.read_text())
    content["overrides"]["SOLVER.AMP.PRECISION"] = "float16"
    experiment.write_text(yaml.safe_dump(content))
    for more in (["--dry-run"], []):
        with pytest.raises(ExperimentError, match="seed_1: SOLVER.AMP.PRECISION float16 needs"):
            call(experiment, *more)
    assert not (tmp_path / "out").exists()


def test_missing_data_and_wrong_keys_stop_it_before_anything_runs(call, experiment, voc, tmp_path):
    text = experiment.read_text()
    experiment.write_text(text.replace("INPUT.SQUARE_SIZE", "INPUT.SQUARE_SIDE"))
    with pytest.raises(ExperimentError, match=r"seed_1: config .*SQUARE_SIDE"):
        call(experiment, "--dry-run")
    experiment.write_text(text)
    (voc.root / "ImageSets/Main/train.txt").unlink()
    listing = call(experiment, "--dry-run")
    assert listing.count("no data") == 2 and listing.count("Data that cannot be used: ") == 1
    assert "datasets/README.md" in listing
    with pytest.raises(ExperimentError, match=r"train\.txt"):
        call(experiment)
    assert not (tmp_path / "out").exists()


def test_weights_of_another_place_are_fetched_before_the_first_run(
    call, experiment, tmp_path, monkeypatch
):
    def no_network(path):
        raise OSError("no route to host")

    monkeypatch.setattr("mutual_guidance.engine.checks.PathManager.get_local_path", no_network)
    text = experiment.read_text()
    experiment.write_text(
        text.replace("overrides:", "overrides:\n  MODEL.WEIGHTS: torchvision://x")
    )
    assert "to do" in call(experiment, "--dry-run")
    with pytest.raises(ConfigError, match="torchvision://x cannot be had .no route to host"):
        call(experiment)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_no_jobs_are_refused(call, experiment, jobs, capsys):
    with pytest.raises(SystemExit):
        call(experiment, "--jobs", jobs)
    assert "must be 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_fits_its_configs(path, tmp_path):
    experiment = load_experiment(path, tmp_path)
    # One seed and fold are enough: the others differ by them alone.
    cells = [cell for cell in experiment.cells if cell.seed == 1 and cell.fold in (None, 1)]
    assert cells and set(make_plans(REPOSITORY, cells, experiment.questions)) == set(cells)
    configs = {cell.config for cell in cells}
    assert set(experiment.paper.get("figures", configs)) == configs


@pytest.fixture
def planned(experiment):
    """The experiment, now of two strategies and with a plan."""
    content = yaml.safe_load(experiment.read_text())
    content["strategies"], content["seeds"] = ["static", "mutual_guidance"], [1, 2]
    question = {"metric": "AP", "strategy": "mutual_guidance", "classes": ["red", "green"]}
    content["primary"] = {"claim": "it helps", **question}
    content["decision"] = {"paper_gain": 3.5}
    content["overrides"]["DATASETS.REGISTER"][0]["classes"] = ["red", "green", "blue"]
    experiment.write_text(yaml.safe_dump(content))
    return experiment


def test_dry_run_tells_what_difference_the_grid_can_show(call, tool, planned, tmp_path, capsys):
    planned.write_text(planned.read_text().replace("seeds:\n- 1\n- 2", "seeds: [1, 2, 3, 4]"))
    tool.main([str(planned), "--dry-run"])
    listing, err = capsys.readouterr()
    assert "known once two static runs of a fold have finished" in listing
    assert err.count("drawn.yaml is not committed as it is") == 1
    text = (REPOSITORY / "docs" / "results" / "shapes_4000.json").read_text()
    shapes = tmp_path / "shapes.json"
    shapes.write_text(text.replace("AP-ring", "AP-red").replace("AP-star", "AP-green"))
    listing = call(planned, "--dry-run", "--spread-of", shapes)
    values = [
        (run["metrics"]["AP-red"] + run["metrics"]["AP-green"]) / 2
        for run in json.loads(shapes.read_text())["runs"]
        if run["strategy"] == "static"
    ]
    shown = (3.182 + 0.978) * statistics.stdev(values) * (2 / 4) ** 0.5
    assert f"4 pairs show a difference of {shown:.1f} AP in four of five" in listing
    gain = 0.035 * statistics.mean(values)
    assert "spread of 8 static runs" in listing and f"gain of 3.5 % is {gain:.1f}." in listing
    with pytest.raises(ExperimentError, match="drawn.yaml is no results.json of an experiment"):
        call(planned, "--dry-run", "--spread-of", planned)
    pilot = "docs/results/bccd_pilot.json"  # of other classes
    listing = call(planned, "--dry-run", "--spread-of", pilot)
    assert f"{pilot} does not tell what difference it can show" in listing


def test_a_spread_that_nothing_asks_for_is_refused(call, experiment, capsys):
    with pytest.raises(SystemExit):
        call(experiment, "--spread-of", experiment)
    assert "--spread-of tells what a grid can show before" in capsys.readouterr().err
    with pytest.raises(ExperimentError, match=r"drawn.yaml has no plan \(primary\)"):
        call(experiment, "--dry-run", "--spread-of", experiment)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["red", "gren"]}, "gren is no class of test_.*, whose are red, green, blue"),
        ({"metric": "AP-gren"}, "gren is no class of"),
        ({"metric": "AP57"}, "no run on test_.* has a metric AP57; there are AP, AP50, AP75,"),
        ({"metric": "APs"}, "no run on test_.* has a metric APs"),  # COCO's
        ({"metric": "AP@300"}, "no run on test_.* has a metric AP@300"),
    ],
)
def test_a_plan_that_no_run_can_answer_stops_before_the_runs(call, planned, change, message):
    content = yaml.safe_load(planned.read_text())
    content["primary"].update(change)
    planned.write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=message):
        call(planned)
    content["primary"].update(classes=["red"], metric="AP")
    for metric, reason in (
        ("misalignment/suppressed", "misalignment/ needs TEST.MISALIGNMENT True"),
        ("misalignment/supressed", "has a metric misalignment/supressed"),
        ("assignment/agreement", "has a metric assignment/agreement"),
    ):
        content["secondary"] = [{"metric": metric}]
        planned.write_text(yaml.safe_dump(content))
        with pytest.raises(ExperimentError, match=reason):
            call(planned)
        content["overrides"]["TEST.MISALIGNMENT"] = True


def test_a_committed_plan_is_that_from_any_folder(call, tool, monkeypatch):
    monkeypatch.chdir(REPOSITORY / "experiments")
    asked = []
    monkeypatch.setattr(tool, "is_committed", lambda _, path: asked.append(path) or True)
    call("bccd_fcos_cv.yaml", "--dry-run")
    assert asked == [REPOSITORY / "experiments" / "bccd_fcos_cv.yaml"]
    assert Path.cwd() == REPOSITORY


def test_paths_mean_what_they_did_where_the_command_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY / "experiments")
    monkeypatch.setenv("DETECTRON2_DATASETS", "../data")
    tool = load_script("tools/experiment.py")
    results = tmp_path / "results.json"
    args = argparse.Namespace(experiment=Path("bccd.yaml"), spread_of=results)
    tool.enter_root(args)
    assert vars(args) == {"experiment": Path("experiments/bccd.yaml"), "spread_of": results}
    assert os.environ["DETECTRON2_DATASETS"] == str(REPOSITORY / "data")


def test_a_second_call_at_a_time_is_refused(call, tool, experiment, monkeypatch):
    def held(folder, is_new_run):
        raise OutputError(folder)

    monkeypatch.setattr(tool, "check_output", held)
    with pytest.raises(OutputError, match="out/drawn"):
        call(experiment)
    # What that one is writing is not written over to list it.
    (tool.OUTPUT / "drawn").mkdir(parents=True)
    monkeypatch.setattr(tool, "restore", None)
    assert "to do" in call(experiment, "--dry-run")


def test_a_finished_run_needs_its_weights_no_more(call, tool, experiment, tmp_path):
    content = yaml.safe_load(experiment.read_text())
    del content["protocols"]
    content["overrides"]["MODEL.WEIGHTS"] = str(tmp_path / "gone.pth")
    experiment.write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=r"seed_1: MODEL.WEIGHTS: there is no file .*gone"):
        call(experiment, "--dry-run")
    (cell,) = load_experiment(experiment, tool.OUTPUT).cells
    write_json(cell.folder / "record.json", {"seconds_per_image": None})
    assert "finished" in call(experiment, "--dry-run")


def test_an_unfinished_experiment_has_no_answer_and_a_changed_plan_is_refused(call, tool, planned):
    experiment = load_experiment(planned, tool.OUTPUT)
    plans = make_plans(REPOSITORY, experiment.cells, experiment.questions)
    configs = {cell: plan.config for cell, plan in plans.items()}
    for cell in experiment.cells:
        note_launch(REPOSITORY, cell, configs)
    place = ("protocol", "config", "variant", "strategy", "baseline", "fold", "seed")
    record = {key: getattr(experiment.cells[-1], key) for key in place}
    record.update(metrics={"AP": 5.0}, history=[], commits=["unknown"], seconds_per_image=None)
    write_json(REPOSITORY / experiment.cells[-1].folder / "record.json", record)
    tool.save_results(experiment, plans, planned, tool.OUTPUT / "drawn")
    result = json.loads((tool.OUTPUT / "drawn" / "results.json").read_text())
    assert result["answer"] == {"state": "running: 1 of 4 runs"}
    text = (tool.OUTPUT / "drawn" / "results.md").read_text()
    assert text.startswith("it helps: **running: 1 of 4 runs**.\n\n")
    assert result["questions"]["decision"] == {"paper_gain": 3.5}
    assert result["plan_commits"] == ["unknown"]

    planned.write_text(planned.read_text().replace("paper_gain: 3.5", "paper_gain: 9.5"))
    with pytest.raises(ExperimentError, match=r"mutual_guidance/seed_1 holds .* with decision"):
        call(planned, "--dry-run")


def test_a_mean_over_some_classes_is_of_ap_alone(call, planned):
    content = yaml.safe_load(planned.read_text())
    content["primary"].update(classes=["red"], metric="AP50")
    planned.write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match="AP50 of test_.* is over all classes: name all"):
        call(planned)
