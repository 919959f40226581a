"""
The stream of training images, as a function of the seed and of the place in it: a run that
resumes at some iteration sees what it would have seen, whatever the numbers of processes and of
loader workers.
"""

import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    build_detection_train_loader,
)
from detectron2.data.build import worker_init_reset_seed
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..detectron2_private import train_loader_from_config
from .mapper import build_mapper


class PlacedSampler(Sampler):
    """Another sampler's indices, each with its place in the stream of all processes."""

    def __init__(self, sampler: Sampler, start: int = 0) -> None:
        """
        Args:
            sampler: endless, and of this process, as Detectron2's training samplers are.
            start: how many of its indices to leave out.
        """
        self.sampler = sampler
        self.start = start
        # Now, since a loader worker that was spawned, not forked, knows of no other process.
        self.rank, self.world_size = comm.get_rank(), comm.get_world_size()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yields (place, index)."""
        places = itertools.count(self.rank, self.world_size)
        pairs = zip(places, self.sampler, strict=False)
        yield from itertools.islice(pairs, self.start, None)


class PlacedDataset(Dataset):
    """Records by (place, index), mapped with random numbers that depend on the place alone."""

    def __init__(self, records: list[dict], mapper: Callable[[dict], dict], seed: int) -> None:
        self.records = DatasetFromList(records)
        self.mapper = mapper
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, placed: tuple[int, int]) -> dict:
        place, index = placed
        _seed_everything(self.seed, place)
        return self.mapper(self.records[index])


def build_train_loader(cfg: CfgNode, seed: int, first_iteration: int = 0):
    """
    Detectron2's training loader over the stream of ``seed``, from an iteration on.

    With DATALOADER.ASPECT_RATIO_GROUPING, which holds images back, the place of an iteration in
    the stream is only roughly known.
    """
    # The samplers take their seed from NumPy's random state.
    _seed_everything(seed)
    args = train_loader_from_config(cfg, build_mapper(cfg, is_train=True))
    records, mapper, sampler = args.pop("dataset"), args.pop("mapper"), args.pop("sampler")
    start = first_iteration * (cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size())
    loader = build_detection_train_loader(
        PlacedDataset(records, mapper, seed),
        sampler=PlacedSampler(sampler, start),
        mapper=None,
        **args,
    )
    grouped = isinstance(loader, AspectRatioGroupedDataset)
    _let_workers_outlive_signals(loader.dataset if grouped else loader)
    return loader


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Detectron2's."""
    loader = build_detection_test_loader(
        cfg, dataset_name, mapper=build_mapper(cfg, is_train=False)
    )
    _let_workers_outlive_signals(loader)
    return loader


def _let_workers_outlive_signals(loader: DataLoader) -> None:
    """
    Let the workers end with the loader, not with a signal to their whole process group: the main
    process still needs their batches to finish the iteration.
    """
    # Its parent may be a server that forks the workers.
    loader.worker_init_fn = partial(_start_worker, os.getpid())


def _start_worker(loader_pid: int, worker_id: int) -> None:
    """As Detectron2's, in a worker that only the process of its loader can end."""
    worker_init_reset_seed(worker_id)
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    threading.Thread(target=_end_by, args=(loader_pid,), daemon=True).start()


def _end_by(pid: int) -> None:
    while signal.sigwaitinfo((signal.SIGTERM,)).si_pid != pid:
        pass
    os._exit(0)


def _seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and PyTorch by several non-negative integers."""
    state = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.manual_seed(int(state[2]))
