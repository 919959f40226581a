"""Signs of life of this process, which engine/watchdog.py ends where there are none."""

import contextlib
import time
from collections.abc import Iterator

_last_sign = 0.0
_waits = False


def sign_of_life() -> None:
    """To be called after each piece of work."""
    global _last_sign
    _last_sign = time.monotonic()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Let time within count as life: another process, which is watched as well, is waited for."""
    global _waits
    _waits = True
    try:
        yield
    finally:
        sign_of_life()
        _waits = False


def seconds_since_sign() -> float:
    """Since the last sign of life; 0 while another process is waited for."""
    return 0.0 if _waits else time.monotonic() - _last_sign
