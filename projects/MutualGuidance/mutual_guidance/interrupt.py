"""Signals that ask a training to stop, and how it stops."""

import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

# SIGHUP comes when a terminal is closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A terminal and a launcher may both send the first Ctrl-C; a later one is of a user who insists.
_SAME_SIGNAL_S = 2.0

_received: signal.Signals | None = None
_received_at = 0.0
_may_leave = False  # what this process does: no other takes part in it

Params = ParamSpec("Params")
Result = TypeVar("Result")


class Interrupted(SystemExit):
    """The training was asked to stop; its code is the shell's for the signal, 128 + number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def handled_by(handler: Callable[[int, object], None]) -> Iterator[list[signal.Signals]]:
    """
    Give the signals to stop to ``handler``, but for those that are ignored, as SIGHUP under nohup,
    which stay so. Yields those that are not.
    """
    heeded = [s for s in STOP_SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    previous = {s: signal.signal(s, handler) for s in heeded}
    try:
        yield heeded
    finally:
        for s, before in previous.items():
            signal.signal(s, before)


@contextlib.contextmanager
def note_signals() -> Iterator[None]:
    """
    Only take note of the signals to stop; a second SIGINT, later, acts as usual. Outside of the
    main thread, which alone can handle signals, none is noted.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received = None
    try:
        with handled_by(_take_note) as heeded, _taken_by_another_thread(heeded):
            yield
    finally:
        _received = None


@contextlib.contextmanager
def _taken_by_another_thread(signals: Iterable[signal.Signals]) -> Iterator[None]:
    """
    Block signals in this thread and so, from their first moment, in the loader workers that it
    starts: a signal to the whole process group would end them before the iteration is finished.
    """
    over = threading.Event()
    taker = threading.Thread(target=over.wait, daemon=True)
    taker.start()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        over.set()
        taker.join()


def _take_note(number: int, frame: object) -> None:
    global _received, _received_at
    now = time.monotonic()
    if _received is None:
        _received, _received_at = signal.Signals(number), now
    elif number == signal.SIGINT and now - _received_at > _SAME_SIGNAL_S:
        raise KeyboardInterrupt
    if _may_leave:
        raise Interrupted(_received)


def left_on_signal(work: Callable[Params, Result]) -> Callable[Params, Result | None]:
    """
    Let work of this process alone end with a signal, and return None. The training is not stopped
    by it: the processes do that together, later. Not for work within other such work.
    """

    @functools.wraps(work)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> Result | None:
        global _may_leave
        try:
            try:
                _may_leave = True
                return work(*args, **kwargs) if _received is None else None
            finally:
                _may_leave = False
        except Interrupted:
            return None

    return run


def signal_of_any_process() -> signal.Signals | None:
    """The signal that this or another process of the training has noted; all must call it."""
    return max(comm.all_gather(_received), key=lambda s: s or 0)


def stop_if_asked() -> None:
    """
    Raises:
        Interrupted: this or another process of the training, all of which call it, has noted a
            signal.
    """
    received = signal_of_any_process()
    if received is not None:
        raise Interrupted(received)


class StopOnSignal(DatasetEvaluator):
    """
    Evaluates nothing, but ends an evaluation when a signal has been noted. A process that has noted
    one goes no further than its image; all of them meet before results are gathered and, with one
    more of these as the last evaluator, after they have been.
    """

    def process(self, inputs, outputs) -> None:
        """Raises Interrupted."""
        if _received is not None:
            self.evaluate()

    def evaluate(self) -> None:
        """Raises Interrupted."""
        stop_if_asked()
