"""Ends a process in which nothing happens any more."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator

from detectron2.evaluation import DatasetEvaluator

from ..alive import seconds_since_sign, sign_of_life
from .launch import let_another_tell


class SignsOfLife(DatasetEvaluator):
    """Evaluates nothing, but gives one after each batch."""

    def process(self, inputs, outputs) -> None:
        sign_of_life()


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
    """
    End the process, with one sentence and exit code 1, where it gives no :func:`sign_of_life` for
    so many seconds. 0 is without limit; the time for which a process is suspended does not count.
    """
    sign_of_life()
    over = threading.Event()
    if seconds:
        threading.Thread(target=_watch, args=(seconds, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(seconds: float, over: threading.Event) -> None:
    look = min(seconds / 10, 10.0)
    before = time.monotonic()
    while not over.wait(look):
        now = time.monotonic()
        if now - before > 5 * look:  # suspended, by Ctrl-Z or SIGSTOP, this thread as all others
            sign_of_life()
        elif seconds_since_sign() >= seconds:
            let_another_tell()
            print(
                f"error: no iteration or evaluated image for {seconds:g} s (SOLVER.HANG_SECONDS): "
                "a process, a disk or a GPU hangs; go on with --resume, and with a higher "
                "SOLVER.HANG_SECONDS where one of them, or the metrics, only take longer",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
        before = now
