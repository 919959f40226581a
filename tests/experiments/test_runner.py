"""The runner, with a train_net.py that only writes what the real one does."""

import errno
import json
import os
import signal
import threading
import time
import zipfile
from pathlib import Path

import pytest

from mutual_guidance.errors import ExperimentError
from mutual_guidance.experiments import records, runner
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.experiments.plan import Plan
from mutual_guidance.experiments.records import (
    check_folders,
    drop_checkpoints,
    note_launch,
    read_record,
    write_json,
    write_record,
)
from mutual_guidance.experiments.runner import Runner, slots

ITERATIONS = 4
# Writes an iteration at a time and counts them in a checkpoint, from which it goes on. Seed 13
# fails, seed 14 tears evaluation.json, seed 15 is slow, seed 16 fails without a sentence, seed 17
# tears its last checkpoint, seeds 18 and 19 are killed.
FAKE = """
import json, os, pathlib, signal, sys, time, zipfile
opts = dict(zip(sys.argv[4::2], sys.argv[5::2]))
folder = pathlib.Path(opts["OUTPUT_DIR"])
seed = int(opts["SEED"])
if seed == 13:
    sys.exit("error: a made-up reason")
if seed == 16:
    sys.exit("MemoryError: too little")
if seed in (18, 19):
    print("iter: 19", flush=True)
    os.kill(os.getpid(), {18: signal.SIGKILL, 19: signal.SIGHUP}[seed])
weights = opts.get("MODEL.WEIGHTS")
assert not weights or pathlib.Path(weights).is_file(), weights
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
checkpoint = folder / "checkpoint"
done = int(checkpoint.read_text()) if checkpoint.is_file() else 0
with open(folder / "metrics.json", "a") as f:
    for i in range(done, 4):
        f.write(json.dumps({"iteration": i, "time": 0.5, "bbox/AP": 10.0 * i}) + "\\n")
        f.flush()
        checkpoint.write_text(str(i + 1))
        time.sleep(60.0 if seed == 15 and i == 1 and not done else 0.0)
(folder / "model_0000001.pth").touch()
if seed == 17:
    (folder / "model_final.pth").write_text("torn")
else:
    zipfile.ZipFile(folder / "model_final.pth", "w").close()
ap = seed + (0.5 if opts["MODEL.MUTUAL_GUIDANCE.STRATEGY"] == "static" else 1.5)
text = json.dumps({"data": {"bbox": {"AP": ap, "AP-x": None}, "other": {"z": 1.0}}})
(folder / "evaluation.json").write_text(text[: 20 if seed == 14 else None])
with open(folder.parents[4] / "order.txt", "a") as f:
    f.write(f"{folder} {os.environ['OMP_NUM_THREADS']} {done}\\n")
"""


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr("mutual_guidance.experiments.runner._POLL_SECONDS", 0.02)


def make(tmp_path, seeds, warm=False):
    """A root with the fake script, and the cells of a small experiment; a warm one has starts."""
    (tmp_path / "train_net.py").write_text(FAKE)
    path = tmp_path / "tiny.yaml"
    protocol = "{start: {}}" if warm else "{}"
    path.write_text(
        "configs: [configs/A/x.yaml]\nstrategies: [static, mutual_guidance]\n"
        f"seeds: {seeds}\nprotocols: {{own: {protocol}}}\n"
    )
    return load_experiment(path, Path("out")).cells


def run(tmp_path, cells, jobs=2):
    plans = {cell: Plan(ITERATIONS, 5, 0.0, config={"SEED": cell.seed}) for cell in cells}
    return Runner(tmp_path, plans, [{"OMP_NUM_THREADS": str(i + 1)} for i in range(jobs)]).run()


def finished(tmp_path):
    """Folder names of the runs in the order in which they ended."""
    lines = (tmp_path / "out/tiny/order.txt").read_text().splitlines()
    return ["/".join(line.split()[0].split("/")[-2:]) for line in lines]


def test_runs_every_cell_once_and_a_start_first(tmp_path):
    cells = make(tmp_path, [1, 2], warm=True)
    assert run(tmp_path, cells) == {}
    order = finished(tmp_path)
    assert len(order) == len(cells) == 6
    for seed in (1, 2):
        assert order.index(f"start/seed_{seed}") < order.index(f"static/seed_{seed}")
    record = read_record(tmp_path, cells[2])
    assert record["metrics"] == {"AP": 2.5, "AP-x": None, "other/z": 1.0}
    assert record["iterations"] == ITERATIONS
    assert record["seconds_per_image"] == 0.1  # 0.5 s for 5 images
    assert record["training_hours"] == pytest.approx(4 * 0.5 / 3600)
    assert [point["AP"] for point in record["history"]] == [0.0, 10.0, 20.0, 30.0]
    assert "train_net.py --config-file configs/A/x.yaml --resume" in record["command"]

    assert run(tmp_path, cells) == {}
    assert finished(tmp_path) == order  # nothing ran again


def test_checkpoints_are_kept_as_long_as_they_are_of_use(tmp_path):
    cells = make(tmp_path, [1, 14, 17])
    assert len(run(tmp_path, cells)) == 4
    for cell in cells:
        kept = {path.name for path in (tmp_path / cell.folder).glob("model_0*.pth")}
        assert kept == (set() if cell.seed == 1 else {"model_0000001.pth"})


def test_nothing_is_deleted_before_its_successor_is_whole(tmp_path):
    for i in (1, 20, 3):
        (tmp_path / f"model_{i:07d}.pth").touch()
    drop_checkpoints(tmp_path, keep=2)
    assert len(list(tmp_path.iterdir())) == 3
    zipfile.ZipFile(tmp_path / "model_0000020.pth", "w").close()
    drop_checkpoints(tmp_path, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"model_0000003.pth", "model_0000020.pth"}
    (tmp_path / "model_best.pth").touch()
    drop_checkpoints(tmp_path, keep=0)
    assert len(list(tmp_path.iterdir())) == 3
    zipfile.ZipFile(tmp_path / "model_final.pth", "w").close()
    drop_checkpoints(tmp_path, keep=0)
    assert [path.name for path in tmp_path.iterdir()] == ["model_final.pth"]


def test_checkpoints_of_a_finished_run_go_with_the_next_call(tmp_path):
    (cell,) = make(tmp_path, [1])[:1]
    run(tmp_path, [cell])
    left = tmp_path / cell.folder / "model_0000001.pth"
    left.touch()
    run(tmp_path, [cell])
    assert not left.exists()


def test_a_run_that_cannot_be_launched_or_recorded_does_not_stop_the_others(tmp_path, monkeypatch):
    cells = make(tmp_path, [1, 2, 3])[::2]
    (tmp_path / cells[0].folder).parent.mkdir(parents=True)
    (tmp_path / cells[0].folder).write_text("in the way")

    def disk_is_full(root, cell, *args):
        if cell is cells[1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_record(root, cell, *args)

    monkeypatch.setattr("mutual_guidance.experiments.runner.write_record", disk_is_full)
    failed = run(tmp_path, cells, jobs=1)
    assert list(failed) == cells[:2] and "seed_1" in failed[cells[0]]
    assert "No space left" in failed[cells[1]] and read_record(tmp_path, cells[2])


def test_failure_stops_only_what_needs_it(tmp_path, capsys):
    cells = make(tmp_path, [13, 14, 1])
    failed = run(tmp_path, cells)
    reasons = {cell.seed: reason for cell, reason in failed.items()}
    assert reasons[13] == "error: a made-up reason"
    assert "evaluation.json does not hold the results" in reasons[14]
    assert len(failed) == 4 and all(read_record(tmp_path, c) for c in cells if c.seed == 1)
    assert not any(read_record(tmp_path, c) for c in failed)
    assert "a made-up reason" in capsys.readouterr().err

    warm = make(tmp_path, [13], warm=True)
    reasons = [reason for cell, reason in run(tmp_path, warm).items() if cell.start]
    assert len(reasons) == 2 and all("start" in r and "failed" in r for r in reasons)


def test_the_reason_is_of_the_last_attempt(tmp_path):
    (cell,) = make(tmp_path, [16])[:1]
    (tmp_path / cell.folder).mkdir(parents=True)
    log = tmp_path / cell.folder / "train_net.log"
    log.write_text("error: the disk is full\n")
    assert run(tmp_path, [cell]) == {cell: "MemoryError: too little"}
    assert log.read_text() == "error: the disk is full\nMemoryError: too little\n"


def test_the_signal_that_killed_a_run_is_told(tmp_path):
    cells = make(tmp_path, [18, 19])[::2]
    assert list(run(tmp_path, cells, jobs=1).values()) == [
        "killed by signal 9 (SIGKILL, memory?) after: iter: 19",
        "killed by signal 1 (Hangup) after: iter: 19",
    ]


def test_what_another_call_has_finished_meanwhile_is_not_run_again(tmp_path):
    cells = make(tmp_path, [1], warm=True)
    runner = Runner(tmp_path, {cell: Plan(ITERATIONS, 5, 0.0) for cell in cells}, [{}])
    for cell in cells:
        write_json(tmp_path / cell.folder / "record.json", {})
    assert runner.run() == {} and not (tmp_path / "out/tiny/order.txt").exists()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stops_its_runs_and_resumes_them(tmp_path, signum):
    cells = make(tmp_path, [15])[:1]
    checkpoint = tmp_path / cells[0].folder / "checkpoint"

    def interrupt():
        deadline = time.monotonic() + 60
        while not (checkpoint.is_file() and checkpoint.read_text() == "2"):
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        os.kill(os.getpid(), signum)

    before = signal.getsignal(signum)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, cells)
    thread.join()
    assert signal.getsignal(signum) is before
    assert read_record(tmp_path, cells[0]) is None

    assert run(tmp_path, cells) == {}
    (line,) = (tmp_path / "out/tiny/order.txt").read_text().splitlines()
    assert line.split()[-1] == "2"  # went on from the second iteration
    history = read_record(tmp_path, cells[0])["history"]
    assert [point["iteration"] for point in history] == [1, 2, 3, 4]


def test_torn_and_repeated_lines_of_metrics(tmp_path):
    (cell,) = make(tmp_path, [1])[:1]
    folder = tmp_path / cell.folder
    folder.mkdir(parents=True)
    torn = '{"iteration": 0, "bbox/AP": 99.0, "time": 0.5}\n{"iteration": 1, "bbox/A'
    (folder / "metrics.json").write_text(torn)
    run(tmp_path, [cell])
    points = read_record(tmp_path, cell)["history"]
    assert [(p["iteration"], p["AP"]) for p in points] == [
        (1, 0.0),
        (2, 10.0),
        (3, 20.0),
        (4, 30.0),
    ]


def test_refuses_folders_of_other_configs(tmp_path):
    cells = make(tmp_path, [1])
    there = {cell: {"SEED": 1, "SOLVER.EPOCHS": 2.0} for cell in cells}
    here = {cell: {"SEED": 1, "SOLVER.EPOCHS": 3.0} for cell in cells}
    check_folders(tmp_path, here)  # nothing has run
    note_launch(tmp_path, cells[0], there)
    check_folders(tmp_path, there)
    with pytest.raises(
        ExperimentError, match=r"seed_1 holds a run with SOLVER.EPOCHS 2.0 where .* 3.0: delete"
    ):
        check_folders(tmp_path, here)
    note_launch(tmp_path, cells[1], there)
    with pytest.raises(ExperimentError, match="static/seed_1 .* and 1 more of its folders do: del"):
        check_folders(tmp_path, here)
    # A key that the project did not have then.
    check_folders(tmp_path, {cell: {**config, "NEW.KEY": 0} for cell, config in there.items()})
    # But a plan is made before the runs.
    planned = {cell: {**config, "primary": {}} for cell, config in there.items()}
    with pytest.raises(ExperimentError, match="that was launched with no plan"):
        check_folders(tmp_path, planned)
    note_launch(tmp_path, cells[0], planned)
    note_launch(tmp_path, cells[1], planned)
    with pytest.raises(ExperimentError, match="that was launched with a plan"):
        check_folders(tmp_path, there)


def test_refuses_to_go_on_from_another_start(tmp_path):
    start, cell, _ = make(tmp_path, [1], warm=True)
    note_launch(tmp_path, cell, {start: {"SOLVER.EPOCHS": 60.0}, cell: {}})
    with pytest.raises(
        ExperimentError, match=r"static/seed_1 holds a run from a start with SOLVER.EPOCHS 60.0"
    ):
        check_folders(tmp_path, {start: {"SOLVER.EPOCHS": 10.0}, cell: {}})


def test_the_record_names_the_commits_that_the_run_went_on_with(tmp_path, monkeypatch):
    cell = make(tmp_path, [1])[0]
    for commit in ("abc", "abc", "def"):
        monkeypatch.setattr(records, "_commit", lambda root, commit=commit: commit)
        note_launch(tmp_path, cell, {cell: {}})
    run(tmp_path, [cell])
    assert read_record(tmp_path, cell)["commits"] == ["abc", "def"]


def test_a_record_names_the_gpu_of_its_run(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr("torch.cuda.get_device_name", lambda d: names.append(d) or f"GPU {d}")
    cells = make(tmp_path, [1])
    plans = {cell: Plan(ITERATIONS, 5, 0.0, config={}, device="cuda") for cell in cells}
    slots = [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": gpu} for gpu in ("7", "3")]
    assert Runner(tmp_path, plans, slots).run() == {}
    assert sorted(names) == ["cuda:0", "cuda:1"]


def test_slots_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr(runner, "num_gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots(None) == [{"OMP_NUM_THREADS": "16"}]
    assert slots(3) == [{"OMP_NUM_THREADS": "5"}] * 3
    monkeypatch.setattr(runner, "num_gpus", lambda: 2)
    assert [s["CUDA_VISIBLE_DEVICES"] for s in slots(None)] == ["0", "1"]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in slots(3)] == ["0", "1", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert slots(2) == [{"OMP_NUM_THREADS": "8", "CUDA_VISIBLE_DEVICES": "5"}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,-1,1")  # CUDA stops at the third
    assert [s["CUDA_VISIBLE_DEVICES"] for s in slots(None)] == ["0", "2"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(1)[0]["OMP_NUM_THREADS"] == "3"
    assert slots(16)[0]["OMP_NUM_THREADS"] == "1"
    for setting, threads in (("", "16"), ("2,1", "2")):
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
        assert slots(1)[0]["OMP_NUM_THREADS"] == threads


def test_files_are_one_line_an_item(tmp_path):
    (cell,) = make(tmp_path, [1])[:1]
    run(tmp_path, [cell])
    text = (tmp_path / cell.folder / "record.json").read_text()
    assert len(json.loads(text)["history"]) == ITERATIONS
    assert sum('"iteration"' in line for line in text.splitlines()) == ITERATIONS
