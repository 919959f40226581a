"""Trainings that are killed, asked to stop, and resumed."""

import contextlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.interruptions import TORCHRUN
from tests.conftest import REPOSITORY
from tests.runs import CONFIG, SMALL, draw_four_images, own_set, train_net
from train_net import parse_args

ITERATIONS = 40


@pytest.fixture
def arguments(voc):
    """Of train_net.py, but for the output folder."""
    draw_four_images(voc)
    return [
        "--config-file", CONFIG, *own_set(voc), *SMALL,
        "INPUT.SSD_AUGMENTATION", True, "SOLVER.MAX_ITER", ITERATIONS,
        "SOLVER.IMS_PER_BATCH", 2, "SOLVER.CHECKPOINT_PERIOD", 8, "SOLVER.WARMUP_ITERS", 5,
    ]  # fmt: skip


@pytest.fixture
def start():
    """Starts trainings in process groups of their own, which end with the test."""
    started = []

    def start(arguments, out, launcher=()):
        started.append(_start(arguments, out, launcher))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _start(arguments, out, launcher):
    command = [sys.executable, *launcher, "train_net.py", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "OUTPUT_DIR", str(out)], cwd=REPOSITORY, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for(path, process, seconds=200):
    """Until the file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.05)


def final(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)


def assert_same_run(folder, other):
    a, b = final(folder), final(other)
    assert a["trainer"]["iteration"] == b["trainer"]["iteration"] == ITERATIONS - 1
    assert all(map(torch.equal, a["model"].values(), b["model"].values()))
    momenta = [s["trainer"]["_trainer"]["optimizer"]["state"] for s in (a, b)]
    for x, y in zip(*(m.values() for m in momenta), strict=True):
        assert torch.equal(x["momentum_buffer"], y["momentum_buffer"])


@pytest.fixture
def straight(arguments, tmp_path):
    """The output of the run that nothing interrupts."""
    folder = tmp_path / "straight"
    train_net(*arguments, "OUTPUT_DIR", folder, OMP_NUM_THREADS="1")
    return folder


def test_kill_9_and_resume_is_the_uninterrupted_run(arguments, straight, tmp_path, start):
    out = tmp_path / "killed"
    process = start(arguments, out)
    wait_for(out / "model_0000007.pth", process)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    log = train_net("--resume", *arguments, "OUTPUT_DIR", out, OMP_NUM_THREADS="1")
    assert "the newest checkpoint that loads" in log
    assert_same_run(out, straight)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_signals_end_with_a_checkpoint_and_the_command_to_go_on(arguments, tmp_path, start, number):
    out = tmp_path / "out"
    process = start([*arguments, "DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 4000], out)
    wait_for(out / "metrics.json", process)
    while not (out / "metrics.json").stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)  # as a terminal or a scheduler does: loader workers, too
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, log[-2000:]
    assert f"Stopped by {number.name}. Go on with:\n" in log and "Traceback" not in log
    python, script, *told = shlex.split(log.strip().splitlines()[-1])
    args = parse_args(told)
    assert args.resume and args.opts[-2:] == ["OUTPUT_DIR", str(out)]
    stopped = max(out.glob("model_0*.pth"))
    iteration = int(re.search(r"\d+", stopped.name)[0])
    state = torch.load(stopped, weights_only=True)
    assert state["trainer"]["iteration"] == iteration
    assert stopped.name in (out / "last_checkpoint").read_text()


def children(process, pattern):
    """The ids of those whose command line has the pattern."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # it has ended
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process.pid and pattern in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_signal_while_processes_start(arguments, tmp_path, start, number):
    process = start(["--num-gpus", 2, *arguments], tmp_path / "out")
    while len(children(process, "spawn_main")) < 2:
        assert process.poll() is None
    time.sleep(0.05)  # Python itself starts
    log, _ = stopped(process, number)
    assert process.returncode == 128 + number, (process.returncode, log)
    assert "Traceback" not in log


TWO = ("--num-gpus", 2, "DATALOADER.NUM_WORKERS", 1)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [("DATALOADER.NUM_WORKERS", 2), TWO], ids=["one", "two"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_in_an_evaluation(voc, arguments, tmp_path, start, processes, number):
    for i in range(300):
        voc.add(f"more{i}", [("red", (3, 5, 24, 40))], split="test")
    entry = {"name": "many", "format": "voc", "root": str(voc.root), "split": "test"}
    out = tmp_path / "out"
    first, *rest = processes if processes[0].startswith("--") else (None, *processes)
    entries = f"[{entry}, {arguments[arguments.index('DATASETS.REGISTER') + 1][1:-1]}]"
    process = start(
        [*([first, rest.pop(0)] if first else []), *arguments, *rest, "TEST.EVAL_PERIOD", 8,
         "DATASETS.REGISTER", entries, "DATASETS.TEST", "('many',)"], out,
    )  # fmt: skip
    wait_for(out / "model_0000007.pth", process)
    time.sleep(1.0)
    log, seconds = stopped(process, number)
    assert process.returncode == 128 + number and seconds < 8, (process.returncode, seconds, log)
    assert f"Stopped by {number.name}" in log and "Traceback" not in log
    assert not (out / "evaluation.json").exists()


def stopped(process, number):
    """What a process group wrote until all of it ended after a signal, and the seconds it took."""
    start = time.monotonic()
    os.killpg(process.pid, number)
    log, _ = process.communicate(timeout=100)
    return log, time.monotonic() - start


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others_and_is_the_only_one_to_tell(
    arguments, tmp_path, start
):
    out = tmp_path / "out"
    (out / "model_0000007.pth.unfinished").mkdir(parents=True)  # in the way of the checkpoint
    process = start([*TWO[:2], *arguments, *TWO[2:]], out)
    wait_for(out / "metrics.json", process)
    log, _ = process.communicate(timeout=100)
    assert process.returncode == 1 and "Traceback" not in log, log
    assert re.search(r"^error: \S+model_0000007\.pth cannot be written", log, re.M), log
    assert log.count("error: ") == 1


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_run(arguments, tmp_path, start):
    out = tmp_path / "out"
    process = start(
        [*TWO[:2], *arguments, "SOLVER.HANG_SECONDS", 10.0, "SOLVER.MAX_ITER", 10000], out
    )
    wait_for(out / "model_0000007.pth", process)
    os.kill(children(process, "spawn_main")[-1], signal.SIGSTOP)
    begin = time.monotonic()
    log, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - begin < 10 + 10, log
    assert log.count("error: no iteration") == 1 and "Traceback" not in log


@pytest.mark.slow
def test_torchrun_goes_on_by_itself_after_a_worker_is_killed(arguments, tmp_path, start):
    out = tmp_path / "out"
    process = start(arguments, out, [*TORCHRUN, "--max-restarts", "1"])
    wait_for(out / "model_0000007.pth", process)
    os.kill(children(process, "train_net")[-1], signal.SIGKILL)
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log[-3000:]
    assert "the newest checkpoint that loads" in log
    assert final(out)["trainer"]["iteration"] == ITERATIONS - 1
