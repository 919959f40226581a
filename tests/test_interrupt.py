import os
import signal
import time

import pytest

from mutual_guidance.interrupt import left_on_signal, note_signals, signal_of_any_process


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


def test_other_errors_of_work_are_its_own():
    with note_signals(), pytest.raises(ZeroDivisionError):
        left_on_signal(lambda: 1 / 0)()
