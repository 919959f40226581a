import signal
import subprocess
import sys
import time

import pytest

from mutual_guidance.alive import sign_of_life, waiting
from mutual_guidance.engine.watchdog import watched
from tests.runs import run_python

HANGS = """
import time
from mutual_guidance.engine.watchdog import watched
with watched(0.5):
    time.sleep(60)
"""


def test_a_process_that_hangs_ends_with_a_sentence():
    done = run_python(HANGS, ok=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: no iteration or evaluated image for 0.5 s (SOLVER.HANG_SECONDS)")
    assert "a higher SOLVER.HANG_SECONDS where one of them, or the metrics," in done.stderr


WORKS = """
import time
from mutual_guidance.alive import sign_of_life
from mutual_guidance.engine.watchdog import watched
with watched(2):
    print("begun", flush=True)
    for _ in range(10):
        time.sleep(0.2)
        sign_of_life()
"""


def test_time_in_which_a_process_is_suspended_does_not_count():
    process = subprocess.Popen([sys.executable, "-c", WORKS], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert process.wait(50) == 0


@pytest.mark.parametrize("seconds", [0, 2])
def test_work_and_no_limit_go_on(seconds):
    with watched(seconds):
        for _ in range(30):
            time.sleep(0.1)
            sign_of_life()


def test_the_wait_for_a_process_that_is_watched_itself_is_no_hang():
    with watched(0.5):
        with waiting():
            time.sleep(2)
        time.sleep(0.2)
