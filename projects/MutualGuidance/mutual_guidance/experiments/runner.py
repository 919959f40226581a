"""Runs the cells of an experiment, several at a time, and can be stopped at any moment."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ..errors import ExperimentError
from ..interrupt import handled_by
from ..machine import num_gpus
from .grid import Cell
from .plan import Plan
from .records import (
    LOG_FILE,
    drop_checkpoints,
    is_finished,
    note_launch,
    progress,
    write_record,
)

_POLL_SECONDS = 1.0
# A run that is told to stop finishes its iteration and writes a checkpoint.
_GRACE_SECONDS = 180.0
# To go on from, and in case that the last one is torn.
_CHECKPOINTS_KEPT = 2


@dataclass
class _Running:
    cell: Cell
    process: subprocess.Popen
    slot: dict[str, str]
    log_start: int  # of what this process writes to the log, to which earlier attempts wrote


def slots(jobs: int | None) -> list[dict[str, str]]:
    """
    The environment variables of each run that may go on at a time: runs take turns at the GPUs, and
    divide the CPU's cores among themselves, but use no more threads than OMP_NUM_THREADS says.

    Args:
        jobs: how many; None is one a GPU, or one on the CPU.
    """
    devices = os.getenv("CUDA_VISIBLE_DEVICES", "").split(",")
    if not all(devices):
        devices = [str(i) for i in range(num_gpus())]
    devices = devices[: num_gpus()]  # CUDA sees none behind the first that is not there
    jobs = jobs or max(1, len(devices))
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    most = os.getenv("OMP_NUM_THREADS", "").split(",")[0]  # of the first level of nesting
    common = {"OMP_NUM_THREADS": str(min(share, int(most)) if most.isdecimal() else share)}
    if not devices:
        return [dict(common) for _ in range(jobs)]
    return [{**common, "CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} for i in range(jobs)]


class Runner:
    """Runs cells as processes of ``train_net.py``."""

    def __init__(self, root: Path, plans: dict[Cell, Plan], slots: list[dict[str, str]]) -> None:
        """
        Args:
            root: of the project. plans: of every cell, a start before those that need it.
            slots: see :func:`slots`.
        """
        self.root = root
        self.plans = plans
        self.free = list(slots)
        # As CUDA counts them here.
        self.gpus = list(dict.fromkeys(s.get("CUDA_VISIBLE_DEVICES") for s in slots))
        self.waiting = [cell for cell in plans if not is_finished(root, cell)]
        self.running: list[_Running] = []
        self.failed: dict[Cell, str] = {}

    def run(self) -> dict[Cell, str]:
        """
        Run what is not finished.

        Returns:
            Why a run failed, of those that did.

        Raises:
            KeyboardInterrupt: SIGINT, SIGTERM or SIGHUP came; the runs have been stopped, each with
                a checkpoint to go on from.
        """
        # In place of what signals do: an exception at any point could lose a process.
        came: list[int] = []
        with handled_by(lambda number, _: came.append(number)):
            try:
                self._run_all(came)
            finally:
                self._stop()
        if came:
            raise KeyboardInterrupt
        return self.failed

    def _run_all(self, came: list[int]) -> None:
        """Until none is left, or a signal came."""
        for cell in self.plans:
            if is_finished(self.root, cell):
                drop_checkpoints(self.root / cell.folder, keep=0)
        total = sum(plan.iterations for plan in self.plans.values())
        bar = tqdm(
            total=total,
            initial=self._done(),
            unit="it",
            smoothing=0,  # iterations come in bursts of several runs
            mininterval=0.5 if sys.stderr.isatty() else 60.0,
        )
        with bar:
            while (self.waiting or self.running) and not came:
                self._start_ready()
                time.sleep(_POLL_SECONDS)
                self._collect()
                bar.set_postfix_str(self._status(), refresh=False)
                bar.update(self._done() - bar.n)

    def _done(self) -> int:
        """Iterations of all cells."""
        plans = self.plans.items()
        return sum(progress(self.root, cell, plan.iterations) for cell, plan in plans)

    def _status(self) -> str:
        finished = sum(is_finished(self.root, cell) for cell in self.plans)
        return f"{finished}/{len(self.plans)} runs, {len(self.failed)} failed"

    def _start_ready(self) -> None:
        for cell in list(self.waiting):
            if is_finished(self.root, cell):  # another call has made it meanwhile
                self.waiting.remove(cell)
            elif cell.start in self.failed:
                self._fail(cell, f"its start {cell.start.folder} failed")
                self.waiting.remove(cell)
            elif self.free and (cell.start is None or is_finished(self.root, cell.start)):
                self.waiting.remove(cell)
                try:
                    self._launch(cell, self.free[0])
                except OSError as error:
                    self._fail(cell, str(error))

    def _launch(self, cell: Cell, slot: dict[str, str]) -> None:
        note_launch(self.root, cell, {c: plan.config for c, plan in self.plans.items()})
        with (self.root / cell.folder / LOG_FILE).open("a") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                [sys.executable, *cell.arguments],
                cwd=self.root,
                env={**os.environ, **slot},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C reaches the runner alone
            )
        self.free.remove(slot)
        self.running.append(_Running(cell, process, slot, log_start))

    def _collect(self) -> None:
        """Take account of the processes that ended, and of the others' checkpoints."""
        for run in self.running:
            drop_checkpoints(self.root / run.cell.folder, _CHECKPOINTS_KEPT)
        for run in [r for r in self.running if r.process.poll() is not None]:
            self.running.remove(run)
            self.free.append(run.slot)
            if run.process.returncode:
                log = self.root / run.cell.folder / LOG_FILE
                reason = last_line(log, run.log_start)
                self._fail(run.cell, _killed_by(run.process.returncode) + reason)
                continue
            try:
                plan = self.plans[run.cell]
                device = plan.device
                if device.startswith("cuda"):
                    device = f"cuda:{self.gpus.index(run.slot.get('CUDA_VISIBLE_DEVICES'))}"
                write_record(self.root, run.cell, plan.iterations, plan.ims_per_batch, device)
                drop_checkpoints(self.root / run.cell.folder, keep=0)
            except (ExperimentError, OSError) as error:
                self._fail(run.cell, str(error))

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell] = reason
        tqdm.write(f"failed: {cell.folder}: {reason}", file=sys.stderr)

    def _stop(self) -> None:
        """Tell the runs to stop, and wait until they have."""
        _signal_all(self.running, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        for run in self.running:
            try:
                run.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_all([run], signal.SIGKILL)
                run.process.wait()
        self.running.clear()


def _signal_all(runs: Iterable[_Running], signum: int) -> None:
    for run in runs:
        if run.process.poll() is None:
            run.process.send_signal(signum)


def _killed_by(returncode: int) -> str:
    """The signal that ended a run, to stand before its last line; empty where none did."""
    if returncode >= 0:
        return ""
    number = -returncode
    cause = "SIGKILL, memory?" if number == signal.SIGKILL else signal.strsignal(number)
    return f"killed by signal {number} ({cause}) after: "


def last_line(path: Path, start: int) -> str:
    """Of a log from the byte ``start`` on: the error that ended the run, where it wrote one."""
    with path.open("rb") as f:
        f.seek(start)
        text = f.read().decode(errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it wrote nothing"])[-1].strip()
