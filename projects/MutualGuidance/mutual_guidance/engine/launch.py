"""One process or many: started here, or by torchrun."""

import argparse
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import start_processes

from ..data.shared import machine_group
from ..errors import ConfigError, UserError, run_main
from ..interrupt import STOP_SIGNALS, Interrupted, handled_by
from ..machine import num_gpus
from .output import is_held

Main = Callable[[argparse.Namespace], object]

_LOCALHOST = "127.0.0.1"
_REFUSED = "mutual_guidance/refused"
# In which processes that were asked to stop end together, after the first has; in which those
# that are told to end because another failed do, before they are killed; in which the
# launcher has ended those that would only hide what the first said; and those that find the same as
# the first, on a machine however busy.
_STOP_S, _END_S, _SILENCE_S, _SAME_S = 5.0, 2.0, 4.0, 30.0


def launch(main: Main, args: argparse.Namespace) -> None:
    """
    Run ``main(args)`` in every process, through :func:`run_main`.

    Under torchrun this is one of the processes already, and a restarted one resumes, unless the run
    was refused before it had its folder: that ends every restart at once. Otherwise
    ``args.num_gpus`` processes are started on each of ``args.num_machines`` machines; those of one
    machine find each other by themselves, those of several at ``args.dist_url``. Processes talk
    over NCCL where there is a GPU, else over gloo.

    Raises:
        SystemExit: a started process ended so; the code is that of the first.
    """
    if dist.is_torchelastic_launched():
        run_main(_check_gpus, int(os.environ["LOCAL_WORLD_SIZE"]))
        store = _join_torchrun()
        restarts = comm.all_gather(int(os.environ["TORCHELASTIC_RESTART_COUNT"]))
        args.resume = args.resume or (any(restarts) and not args.eval_only)
        _run(_noting_refusal(main, store), args)
    elif args.num_gpus * args.num_machines > 1:
        run_main(_check_gpus, args.num_gpus)
        sys.exit(_run_processes(main, args))
    else:
        run_main(main, args)


def _check_gpus(needed: int) -> None:
    found = num_gpus()
    if found and needed > found:
        raise ConfigError(f"{needed} processes need a GPU each: PyTorch finds {found} here")


def _run_processes(main: Main, args: argparse.Namespace) -> int:
    """Start the processes of this machine and wait for them; the exit code."""
    # Served from here, at a port that is free, for as long as the processes live.
    store = None
    if args.num_machines == 1:
        store = dist.TCPStore(_LOCALHOST, 0, is_master=True, wait_for_workers=False)
    with _signals_passed_on() as received:
        with _ctrl_c_held_back():
            context = start_processes(
                _run_rank,
                args=(main, args, store and store.port),
                nprocs=args.num_gpus,
                join=False,
            )
        code = _end_together(context.processes)
    # Some end with 0 after Ctrl-C.
    return code or (128 + received[0] if received else 0)


def _end_together(processes: Sequence[BaseProcess]) -> int:
    """Wait for all processes, of which the first that fails ends the others; its exit code."""
    running, code = {p.sentinel: p for p in processes}, 0
    while running and not code:
        for sentinel in connection.wait(running):
            process = running.pop(sentinel)
            process.join()  # its exit code comes a moment after its end
            code = code or process.exitcode
    code = code if code >= 0 else 128 - code
    if code in {128 + s for s in STOP_SIGNALS}:
        _join(processes, _STOP_S)
    for end in (BaseProcess.terminate, BaseProcess.kill):
        for process in processes:
            if process.is_alive():
                end(process)
        _join(processes, _END_S)
    return code


def _join(processes: Sequence[BaseProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


def _run_rank(local_rank: int, main: Main, args: argparse.Namespace, port: int | None) -> None:
    """Run in a started process, whose loader workers start as those of any other do."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    rank = args.machine_rank * args.num_gpus + local_rank
    world_size = args.num_gpus * args.num_machines
    try:
        if port is not None:
            store = dist.TCPStore(_LOCALHOST, port, is_master=False, timeout=DEFAULT_TIMEOUT)
        else:
            found = dist.rendezvous(args.dist_url, rank, world_size, timeout=DEFAULT_TIMEOUT)
            store = next(found)[0]
        _join_group(store, rank, world_size, args.num_gpus)
    except Exception:  # which PyTorch would write to a file that nobody reads
        traceback.print_exc()
        sys.exit(1)
    _run(main, args)


def _run(main: Main, args: argparse.Namespace) -> None:
    """
    :func:`run_main`, which lets through failures that may be of another process, in a process group
    that is left when all end together.
    """
    received = None
    try:
        run_main(main, args)
    except Interrupted as stop:
        received = stop.signal
    except Exception:
        time.sleep(_SILENCE_S)
        traceback.print_exc()
        sys.exit(1)
    _leave_group()
    if received is not None:
        raise Interrupted(received)


def let_another_tell() -> None:
    """Give the first process of a machine the time to tell what all find, and to end the others."""
    if comm.get_local_rank():
        time.sleep(_SAME_S)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Let one process of a machine tell the :class:`UserError` that all of them find."""
    try:
        yield
    except UserError:
        let_another_tell()
        raise


def _join_torchrun() -> dist.Store:
    """
    Join the process group that torchrun's environment variables describe.

    Returns:
        The store that outlives a restart.

    Raises:
        SystemExit: the run was refused before a restart.
    """
    store, rank, world_size = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
    if store.check([_REFUSED]):
        sys.exit(1)
    # The addresses of processes that are gone are of another attempt.
    attempt = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    _join_group(attempt, rank, world_size, int(os.environ["LOCAL_WORLD_SIZE"]))
    return store


def _noting_refusal(main: Main, store: dist.Store) -> Main:
    """``main``, which leaves a note where it is refused before the run has its folder."""

    def run(args: argparse.Namespace) -> object:
        try:
            return main(args)
        except UserError:
            if comm.is_main_process() and not is_held():
                store.set(_REFUSED, "")
            raise

    return run


def _join_group(store: dist.Store, rank: int, world_size: int, local_size: int) -> None:
    has_gpu = torch.cuda.is_available()
    dist.init_process_group(
        "nccl" if has_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(local_size)
    if has_gpu:
        torch.cuda.set_device(comm.get_local_rank())
    comm.synchronize()


def _leave_group() -> None:
    """
    Destroy the process groups with their threads: one that is at work when Python ends may abort
    the process. A group lives as long as anything refers to it, as the trainer did.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None
    comm._get_global_gloo_group.cache_clear()
    machine_group.cache_clear()
    gc.collect()


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[list[int]]:
    """
    Pass the signals to stop on to the children, which stop by themselves and end this process with
    their code. Yields a list to which the signals are added.
    """
    received = []

    def pass_on(number: int, frame: object) -> None:
        received.append(number)
        for child in multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(child.pid, number)

    with handled_by(pass_on):
        yield received


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """
    Hold Ctrl-C back from the processes that are started until they let it in: while Python itself
    starts, it is a traceback.
    """
    resource_tracker.ensure_running()  # else it starts with the first, and lets it in here
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
