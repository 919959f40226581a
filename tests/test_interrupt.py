import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mutual_guidance.interrupt import (
    STOP_SIGNALS,
    left_on_signal,
    note_signals,
    signal_of_any_process,
)


@left_on_signal
def work(number=None):
    if number is not None:
        os.kill(os.getpid(), number)
        for _ in range(3000):
            time.sleep(0.01)
    return "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_work_is_left_on_a_signal_and_none_is_begun_after_it(number):
    begin = time.monotonic()
    with note_signals():
        assert work() == "done" and signal_of_any_process() is None
        assert work(number) is None
        assert signal_of_any_process() == number
        assert work() is None
    assert work() == "done"
    assert time.monotonic() - begin < 25


def test_another_thread_than_the_main_one_has_no_signals_to_note():
    handlers = [signal.getsignal(s) for s in STOP_SIGNALS]

    def handlers_inside():
        with note_signals():
            return [signal.getsignal(s) for s in STOP_SIGNALS]

    with ThreadPoolExecutor(1) as pool, note_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        while signal_of_any_process() is None:
            time.sleep(0.01)
        assert pool.submit(handlers_inside).result() != handlers
        assert signal_of_any_process() == signal.SIGTERM  # which it leaves to the main thread
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handlers_inside).result() == handlers


def test_other_errors_of_work_are_its_own():
    with note_signals(), pytest.raises(ZeroDivisionError):
        left_on_signal(lambda: 1 / 0)()
