"""Signals that ask a training to stop, and how it stops."""

import contextlib
import signal
import time
from collections.abc import Iterator

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A terminal and a launcher may both send the first Ctrl-C; a later one is of a user who insists.
_SAME_SIGNAL_S = 2.0

_received: signal.Signals | None = None
_received_at = 0.0


class Interrupted(SystemExit):
    """The training was asked to stop; its code is the shell's for the signal, 128 + number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def note_signals() -> Iterator[None]:
    """Only take note of SIGTERM and SIGINT; a second SIGINT, later, acts as usual."""
    global _received
    _received = None
    previous = {s: signal.signal(s, _take_note) for s in _SIGNALS}
    try:
        yield
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
        _received = None


def _take_note(number: int, frame: object) -> None:
    global _received, _received_at
    now = time.monotonic()
    if _received is None:
        _received, _received_at = signal.Signals(number), now
    elif number == signal.SIGINT and now - _received_at > _SAME_SIGNAL_S:
        raise KeyboardInterrupt


def signal_of_any_process() -> signal.Signals | None:
    """The signal that this or another process of the training has noted; all must call it."""
    return max(comm.all_gather(_received), key=lambda s: s or 0)


class StopOnSignal(DatasetEvaluator):
    """
    Evaluates nothing, but ends an evaluation when a signal has been noted: in the middle, or, of
    several processes, which must end it together, before the results are gathered.
    """

    def process(self, inputs, outputs) -> None:
        """Raises Interrupted."""
        if _received is not None and comm.get_world_size() == 1:
            raise Interrupted(_received)

    def evaluate(self) -> None:
        """Raises Interrupted."""
        received = signal_of_any_process()
        if received is not None:
            raise Interrupted(received)
