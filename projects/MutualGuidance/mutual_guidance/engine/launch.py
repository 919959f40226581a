"""One process or many: started by Detectron2's launch, or by torchrun."""

import argparse
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from detectron2.engine import launch as launch_processes
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch import multiprocessing

from ..errors import UserError, run_main


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """
    Run ``main(args)`` in every process, through :func:`run_main`.

    Under torchrun this is one of the processes already, and a restarted one resumes. Otherwise
    ``args.num_gpus`` processes are started on each of ``args.num_machines`` machines. Processes
    talk over NCCL where there is a GPU, else over gloo.

    Raises:
        SystemExit: a started process ended so; the code is its own.
    """
    if dist.is_torchelastic_launched():
        join_group()
        restarts = comm.all_gather(int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
        args.resume = args.resume or any(restarts)
        run_main(main, args)
        dist.destroy_process_group()
        return
    received = _pass_on_signals() if args.num_gpus * args.num_machines > 1 else []
    try:
        launch_processes(
            run_main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(main, args),
        )
    except multiprocessing.ProcessExitedException as error:
        code = error.exit_code
        raise SystemExit(code if code >= 0 else 128 - code) from error
    if received:  # some children end with 0 after Ctrl-C
        raise SystemExit(128 + received[0])


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let one process of a machine tell the :class:`UserError` that all of them find."""
    try:
        yield
    except UserError as error:
        if comm.get_local_rank():
            raise SystemExit(1) from error
        raise


def join_group() -> None:
    """Join the process group that torchrun's environment variables describe."""
    has_gpu = torch.cuda.is_available()
    store, rank, world_size = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
    # The store outlives a restart, with the addresses of processes that are gone.
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        store=dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store),
        rank=rank,
        world_size=world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if has_gpu:
        torch.cuda.set_device(comm.get_local_rank())


def _pass_on_signals() -> list[int]:
    """
    Pass SIGTERM and SIGINT on to the children, which stop by themselves and end this process with
    their code. Returns a list to which the signals are added.
    """
    received = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(child.pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return received
