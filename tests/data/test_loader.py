import itertools
import os
import signal
import subprocess
import sys

import pytest
import torch

from mutual_guidance.config import load_config
from mutual_guidance.data import build_train_loader, register_datasets
from mutual_guidance.data.loader import PlacedSampler
from tests.runs import CONFIG, draw_four_images


@pytest.fixture
def cfg(voc, voc_entry):
    draw_four_images(voc)
    register_datasets([voc_entry])
    name = f"('{voc_entry['name']}',)"
    opts = ["DATASETS.TRAIN", name, "INPUT.SQUARE_SIZE", 64, "INPUT.SSD_AUGMENTATION", True]
    return load_config(CONFIG, [*opts, "SOLVER.IMS_PER_BATCH", 3, "DATALOADER.NUM_WORKERS", 0])


def take(cfg, count, seed=7, first=0):
    """The first batches from an iteration on, as (file name, image) of each image."""
    loader = build_train_loader(cfg, seed, first)
    return [[(d["file_name"], d["image"]) for d in b] for b in itertools.islice(loader, count)]


def same(batches, others):
    pairs = [zip(b, o, strict=True) for b, o in zip(batches, others, strict=True)]
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for p in pairs for a, b in p)


def test_the_stream_goes_on_where_it_was(cfg):
    whole = take(cfg, 6)
    assert same(take(cfg, 4, first=2), whole[2:])
    assert not same(take(cfg, 6, seed=8), whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(cfg, workers):
    whole = take(cfg, 5)
    cfg.DATALOADER.NUM_WORKERS = workers
    assert same(take(cfg, 5), whole)
    assert same(take(cfg, 2, first=3), whole[3:])


@pytest.mark.parametrize("start", ["fork", "forkserver"])  # Python 3.14's
def test_a_worker_is_ended_by_the_process_of_its_loader_alone(cfg, start):
    cfg.DATALOADER.NUM_WORKERS = 1
    loader = build_train_loader(cfg, 7)
    loader.multiprocessing_context = start
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # of a terminal, of a scheduler
        kill = f"import os; os.kill({worker.pid}, {number.value})"  # of another process
        subprocess.run([sys.executable, "-S", "-c", kill], check=True)
    assert len([next(batches) for _ in range(5)]) == 5 and worker.is_alive()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(60)
    assert worker.exitcode == 0


def test_a_worker_that_knows_of_no_other_process_has_the_places_of_its_own(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("detectron2.utils.comm.get_rank", lambda: 1)
        patched.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
        sampler = PlacedSampler(["a", "b", "c"], start=1)
    assert list(sampler) == [(4, "b"), (7, "c")]


def test_processes_share_the_stream_of_one(cfg, monkeypatch):
    cfg.SOLVER.IMS_PER_BATCH = 4
    whole = take(cfg, 3)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda value: [value, value])
    shares = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        shares.append(take(cfg, 3))
        assert same(take(cfg, 2, first=1), shares[-1][1:])  # as when it is resumed
    together = [
        [image for pair in zip(*b, strict=True) for image in pair]
        for b in zip(*shares, strict=True)
    ]
    assert same(together, whole)
