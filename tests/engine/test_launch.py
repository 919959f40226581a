"""Several processes on the CPU, over gloo."""

import atexit
import contextlib
import itertools
import multiprocessing
import os
import signal
import socket
import time
from argparse import Namespace
from importlib import import_module
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from benchmarks.interruptions import TORCHRUN
from mutual_guidance.config import load_config
from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.data.shared import once_a_machine
from mutual_guidance.engine import Interrupted, Trainer, output
from mutual_guidance.engine.device import resolve_device
from mutual_guidance.engine.launch import _end_together, launch
from mutual_guidance.engine.output import check_output
from mutual_guidance.engine.setup import resolve_classes
from mutual_guidance.errors import OutputError
from mutual_guidance.evaluation import PascalVOCEvaluator
from tests.conftest import data_keys
from tests.runs import CONFIG, SMALL, in_two_processes, own_set, results, train_net

module = import_module("mutual_guidance.engine.launch")  # which has a function of its name
BATCH = 8


def draw(voc):
    """Eight images with one to three objects, some classes rare."""
    for i in range(BATCH):
        boxes = [("red", (2 + i, 3, 30 + i, 40)), ("blue", (34, 30 + i, 62, 60))][: 1 + i % 2]
        voc.add(f"i{i}", [*boxes, ("green", (5, 44, 20, 60))] if i % 3 == 0 else boxes)


def make_cfg(root, opts):
    entry = {"name": "own", "format": "voc", "root": str(root), "split": "train"}
    cfg = load_config(
        CONFIG,
        [
            *data_keys(entry), *SMALL, "INPUT.SSD_AUGMENTATION", True,
            "SOLVER.IMS_PER_BATCH", BATCH, "DATALOADER.NUM_WORKERS", 0, "SOLVER.AMP.ENABLED", False,
            # With some seeds, as 5, a ReLU's input is so near 0 that rounding flips its gradient.
            "SEED", 6, *opts,
        ],
    )  # fmt: skip
    resolve_device(cfg)
    register_datasets(cfg.DATASETS.REGISTER)
    check_datasets(cfg.DATASETS.TRAIN)
    resolve_classes(cfg)
    return cfg


def first_gradients(root, path, opts):
    """Save the gradients of the first iteration; run in every process."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trainer = Trainer(make_cfg(root, opts))
    step = trainer._trainer
    with EventStorage():
        sum(step.model(next(step._data_loader_iter)).values()).backward()
    gradients = {n: p.grad for n, p in trainer.checkpointer.model.named_parameters()}
    torch.save(gradients, f"{path}.{comm.get_world_size()}.{comm.get_rank()}")


def stopped_at_metrics(root, folder):
    """Train until a signal to the first process, which alone measures; run in every process."""

    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(6000):
            time.sleep(0.01)

    PascalVOCEvaluator._found = signalled
    opts = ("SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 2, "OUTPUT_DIR", folder)
    trainer = Trainer(make_cfg(root, opts))
    begin = time.monotonic()
    with pytest.raises(Interrupted) as stop:
        trainer.train()
    assert stop.value.code == 143 and time.monotonic() - begin < 40


@pytest.mark.slow
def test_a_signal_ends_the_metrics_in_all_processes(voc, tmp_path):
    draw(voc)
    (tmp_path / "out").mkdir()
    in_two_processes(stopped_at_metrics, voc.root, str(tmp_path / "out"))
    assert (tmp_path / "out" / "model_0000001.pth").exists()


FCOS = ("MODEL.META_ARCHITECTURE", "GuidedFCOS", "MODEL.FCOS.IN_FEATURES", ["p3", "p4", "p5"])
FROZEN = ("MODEL.RESNETS.NORM", "FrozenBN", "MODEL.PYRAMID.NORM", "FrozenBN")
# The one loss that is not divided by a number of positives.
GUIDANCE = "MODEL.MUTUAL_GUIDANCE"
TASK_ALIGNED = (f"{GUIDANCE}.STRATEGY", "task_aligned", f"{GUIDANCE}.CLS_TARGET", "quality")
# As SyncBN, whose PyTorch version needs a GPU.
SYNCHRONISED = ("MODEL.RESNETS.NORM", "naiveSyncBN", "MODEL.PYRAMID.NORM", "naiveSyncBN")


@pytest.mark.parametrize(
    ("config_opts", "norm"),
    [
        pytest.param((), FROZEN, marks=pytest.mark.slow),
        pytest.param(FCOS, FROZEN, marks=pytest.mark.slow),
        (TASK_ALIGNED, SYNCHRONISED),
    ],
    ids=["retinanet", "fcos", "sums_of_targets_sync_bn"],
)
def test_two_processes_give_the_gradients_of_one(voc, tmp_path, config_opts, norm):
    draw(voc)
    opts = (*config_opts, *norm)
    args = (voc.root, tmp_path / "gradients", (*opts, "MODEL.DEVICE", "cpu"))
    threads = torch.get_num_threads()
    first_gradients(*args)
    torch.set_num_threads(threads)
    in_two_processes(first_gradients, *args)
    one = torch.load(tmp_path / "gradients.1.0")
    for rank in range(2):
        two = torch.load(tmp_path / f"gradients.2.{rank}")
        assert one.keys() == two.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(two[name], gradient, rtol=2e-3, atol=2e-5, msg=name)


@pytest.fixture
def taken_port():
    """That Detectron2 would take, as by another run."""
    url = urlparse(default_argument_parser().get_default("dist_url"))
    with socket.socket() as taken:
        with contextlib.suppress(OSError):  # it is
            taken.bind((url.hostname, url.port))
            taken.listen()
        yield


def test_two_processes_train_and_evaluate_as_one(voc, tmp_path, taken_port):
    draw(voc)
    opts = [
        "--config-file", CONFIG, *own_set(voc), *SMALL,
        "SOLVER.MAX_ITER", 12, "SOLVER.IMS_PER_BATCH", 4, "SOLVER.WARMUP_ITERS", 2,
    ]  # fmt: skip
    two = tmp_path / "two"
    train_net("--num-gpus", 2, *opts, "OUTPUT_DIR", two)
    one = tmp_path / "one"
    weights = ["MODEL.WEIGHTS", two / "model_final.pth", "OUTPUT_DIR", one]
    train_net("--eval-only", *opts, *weights)
    assert results(one) == results(two)
    assert results(one)["AP50"] > 0


@pytest.mark.slow
def test_launchers_and_numbers_of_workers_give_the_same_weights(voc, tmp_path):
    draw(voc)
    launchers = [((), ["--num-gpus", 2]), (TORCHRUN, [])]
    weights = []
    for (launcher, processes), workers in itertools.product(launchers, (0, 1, 2)):
        out = tmp_path / f"{len(weights)}"
        train_net(
            *processes, "--config-file", CONFIG, *own_set(voc), *SMALL, "SOLVER.MAX_ITER", 4,
            "SOLVER.IMS_PER_BATCH", 4, "DATALOADER.NUM_WORKERS", workers, "OUTPUT_DIR", out,
            "SEED", 3, launcher=launcher, OMP_NUM_THREADS="1",
        )  # fmt: skip
        weights.append(torch.load(out / "model_final.pth", weights_only=True)["model"])
    for other in weights[1:]:
        assert all(map(torch.equal, weights[0].values(), other.values()))


def test_errors_of_many_processes_are_one_sentence(voc, tmp_path):
    draw(voc)
    (voc.root / "Annotations" / "i3.xml").write_text("<annotation>")
    log = train_net(
        "--num-gpus", 2, "--config-file", CONFIG, *own_set(voc),
        "OUTPUT_DIR", tmp_path / "out", ok=False,
    )  # fmt: skip
    assert log.count("error: ") == 1 and "i3.xml" in log and "Traceback" not in log


def test_torchrun_is_recognised(voc, tmp_path):
    draw(voc)
    out = tmp_path / "out"
    train_net(
        "--config-file", CONFIG, *own_set(voc), *SMALL, "SOLVER.MAX_ITER", 2,
        "SOLVER.IMS_PER_BATCH", 4, "OUTPUT_DIR", out, launcher=TORCHRUN,
    )  # fmt: skip
    log = (out / "log.txt").read_text()
    assert "World size: 2" in log and (out / "model_final.pth").exists()
    assert "Making batched data loader with batch_size=2" in log


def test_a_refused_run_is_not_resumed_by_a_restart(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(output, "_locks", {})

    def refused(args):
        raise OutputError("it holds the checkpoints of an earlier run")

    with pytest.raises(OutputError):
        module._noting_refusal(refused, store)(Namespace())
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 1)]))
    with pytest.raises(SystemExit) as end:
        module._join_torchrun()
    assert end.value.code == 1


@pytest.mark.slow
def test_torchrun_does_not_resume_what_was_refused(voc, tmp_path):
    draw(voc)
    (tmp_path / "model_0000001.pth").touch()
    log = train_net(
        "--config-file", CONFIG, *own_set(voc), "OUTPUT_DIR", tmp_path, ok=False,
        launcher=(*TORCHRUN, "--max-restarts", "2"),
    )  # fmt: skip
    assert log.count("holds the checkpoints of an earlier run") == 1 and "Resuming" not in log


def test_what_fails_later_is_resumed_by_a_restart(monkeypatch, tmp_path):
    store = torch.distributed.HashStore()

    def failing(args):
        check_output(str(tmp_path / "out"), is_new_run=True)
        raise OutputError("it cannot be read for a moment")

    monkeypatch.setattr(output, "_locks", {})
    with pytest.raises(OutputError):
        module._noting_refusal(failing, store)(Namespace())
    assert not store.check([module._REFUSED])


def note_threads(path):
    path.write_text("\n".join(task.read_text() for task in Path("/proc/self/task").glob("*/comm")))


def talk_to_each_other(args):
    """As a training does, until its end or a signal; run in every process."""
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))
    model(torch.ones(1, 1)).sum().backward()
    trainer = {"model": model}
    trainer["hook"] = {"trainer": trainer}
    assert comm.all_gather(comm.get_rank()) == [0, 1]
    assert once_a_machine(comm.get_rank) == 0
    atexit.register(note_threads, args.folder / str(comm.get_rank()))
    if args.stopped:
        raise Interrupted(signal.SIGTERM)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize(
    "stopped",
    [pytest.param(False, marks=pytest.mark.slow), True],
    ids=["ended", "stopped"],
)
def test_no_thread_of_the_group_is_left_when_python_ends(stopped, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_STOP_S", 60.0)
    machine = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    with pytest.raises(SystemExit) as end:
        launch(talk_to_each_other, Namespace(folder=tmp_path, stopped=stopped, **machine))
    assert end.value.code == (143 if stopped else 0)
    for rank in "01":
        threads = (tmp_path / rank).read_text()
        assert threads and "gloo" not in threads


def test_a_process_that_cannot_join_says_why(capfd):
    machines = {"num_gpus": 1, "num_machines": 2, "machine_rank": 0, "dist_url": "host:29500"}
    with pytest.raises(SystemExit) as end:
        launch(print, Namespace(**machines))
    assert end.value.code == 1 and "No rendezvous handler" in capfd.readouterr().err


def end(code, after=0.0, deaf=False):
    """A process that ends so."""
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(after)
    os._exit(code)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ([(0,), (0, 0.5)], 0),
        ([(1,), (0, 60)], 1),
        ([(1,), (0, 60, True)], 1),  # it is killed
        ([(143,), (143, 1.0)], 143),  # it has the time to stop by itself
        ([(0, 60), (3, 0.5)], 3),
    ],
    ids=["all", "one_fails", "deaf", "stopped", "second_fails"],
)
def test_processes_end_together(ends, code, monkeypatch):
    monkeypatch.setattr(module, "_STOP_S", 60.0)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=end, args=args) for args in ends]
    start = time.monotonic()
    for process in processes:
        process.start()
    assert _end_together(processes) == code
    assert time.monotonic() - start < 50
    assert not any(process.is_alive() for process in processes)
    if code == 143:
        assert {process.exitcode for process in processes} == {143}
