"""
The stream of training images, as a function of the seed and of the place in it: a run that
resumes at some iteration sees what it would have seen, whatever the numbers of processes and of
loader workers.
"""

import functools
import itertools
import random
import signal
from collections.abc import Callable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler, get_worker_info

from ..detectron2_private import train_loader_from_config
from .mapper import build_mapper

# For which a worker goes on after SIGTERM, at most.
_GRACE_S = 30


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
        if get_worker_info() is not None:
            _outlive_signals()
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
    return build_detection_train_loader(
        PlacedDataset(records, mapper, seed),
        sampler=PlacedSampler(sampler, start),
        mapper=None,
        **args,
    )


@functools.cache
def _outlive_signals() -> None:
    """
    Let a worker end with the loader, not with a signal to its whole process group: the main
    process still needs its batches to finish the iteration.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_GRACE_S))


def _seed_everything(*entropy: int) -> None:
    """Seed Python, NumPy and PyTorch by several non-negative integers."""
    state = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.manual_seed(int(state[2]))
