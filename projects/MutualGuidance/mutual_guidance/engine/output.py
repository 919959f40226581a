"""The folder and the shared memory that a run needs, checked before it starts."""

import errno
import fcntl
import logging
import os
import shutil

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import ConfigError, OutputError
from ..run_files import checkpoint_files, forget_unfinished

_LOCK_FILE = ".lock"
_SHARED_MEMORY = "/dev/shm"
logger = logging.getLogger(__name__)

# By folder; open while the process lives. Its locks are its own: loader workers, which may survive
# it by seconds, do not hold them.
_locks = {}


def check_output(folder: str, is_new_run: bool) -> None:
    """
    Make the folder, and hold it until the process ends: two runs would overwrite each other.

    Raises:
        OutputError: it cannot be written to or is no name for checkpoints, another run holds it, or
            a new run would mix with the checkpoints of an earlier one.
    """
    if not comm.is_main_process():
        return
    if "?" in folder:  # Detectron2 cuts what follows from the paths of checkpoints
        raise OutputError(f"OUTPUT_DIR {folder} has a question mark: choose a name without")
    if is_new_run and checkpoint_files(folder):
        raise OutputError(
            f"{folder} holds the checkpoints of an earlier run: add --resume to go on with it, or "
            "choose another OUTPUT_DIR"
        )
    if _holds(folder):
        return
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, _LOCK_FILE), "a")  # noqa: SIM115
    except OSError as error:
        raise OutputError(
            f"OUTPUT_DIR {folder} cannot be written to ({error.strerror}); choose another"
        ) from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise OutputError(
                f"another run is writing to {folder}; wait for it, or choose another folder"
            ) from error
        logger.warning(f"{folder} cannot be locked ({error}): see that no other run writes to it")
    _locks[os.path.realpath(folder)] = lock
    forget_unfinished(folder)


def _holds(folder: str) -> bool:
    """Whether this process does, and nobody has removed the folder since."""
    lock, path = _locks.get(os.path.realpath(folder)), os.path.join(folder, _LOCK_FILE)
    if lock is None or not os.path.isfile(path):
        return False
    return os.path.samestat(os.fstat(lock.fileno()), os.stat(path))


def is_held() -> bool:
    """Whether :func:`check_output` has passed in this process."""
    return bool(_locks)


def check_shared_memory(cfg: CfgNode, is_training: bool) -> None:
    """
    Raise ConfigError where the batches of the loaders' workers do not fit into shared memory, which
    would kill the workers. Those of a training wait there while it evaluates.
    """
    if not cfg.DATALOADER.NUM_WORKERS or not os.path.isdir(_SHARED_MEMORY):
        return
    processes = cfg.SOLVER.REFERENCE_WORLD_SIZE or comm.get_world_size()  # of this batch
    inputs, batch = cfg.INPUT, cfg.SOLVER.IMS_PER_BATCH // processes
    pixels = inputs.SQUARE_SIZE**2 or inputs.MAX_SIZE_TEST * inputs.MIN_SIZE_TEST  # one image
    if is_training:
        largest = inputs.SQUARE_SIZE**2 or inputs.MAX_SIZE_TRAIN * max(inputs.MIN_SIZE_TRAIN)
        pixels += largest * batch
    prefetched = 2 * 3 * pixels * cfg.DATALOADER.NUM_WORKERS * comm.get_local_size()
    free = shutil.disk_usage(_SHARED_MEMORY).free
    if prefetched > free:
        raise ConfigError(
            f"{_SHARED_MEMORY} has {free >> 20} MiB free, but the batches of "
            f"DATALOADER.NUM_WORKERS {cfg.DATALOADER.NUM_WORKERS} take {prefetched >> 20} MiB: "
            "enlarge it (in Docker with --ipc=host or --shm-size) or set DATALOADER.NUM_WORKERS 0"
        )
