"""A full disk, told in one sentence however many writers meet it."""

import contextlib
import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError
from ..run_files import remedy


@contextlib.contextmanager
def told(folder: str) -> Iterator[None]:
    """
    Let what cannot be written to the folder of a run, or read elsewhere, end in one sentence.

    Raises:
        OutputError: of an OSError, be it that the process has no more descriptors of files.
    """
    hook = threading.excepthook
    threading.excepthook = _quiet_hook
    try:
        yield
    except OSError as error:
        if error.errno == errno.EMFILE:
            raise OutputError(
                "too many open files: raise the limit (ulimit -n) or lower DATALOADER.NUM_WORKERS, "
                "then go on with --resume"
            ) from error
        if error.errno in (errno.EAGAIN, errno.ENOMEM):
            raise OutputError(
                f"no more processes or memory can be had ({error.strerror}): raise their limits or "
                "lower DATALOADER.NUM_WORKERS, then go on with --resume"
            ) from error
        path = str(error.filename or folder)
        is_output = Path(path).resolve().is_relative_to(Path(folder).resolve())
        raise OutputError(
            f"{path} cannot be {'written' if is_output else 'used'}: {error.strerror or error}; "
            f"{remedy(error)}, then go on with --resume"
        ) from error
    finally:
        threading.excepthook = hook


def _quiet_hook(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread hands its error to the main one, which tells it."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)


def mute_failing_logs(*names: str) -> None:
    """Let the loggers' handlers give up at the first line that they cannot write."""
    for name in names:
        for handler in logging.getLogger(name).handlers:
            handler.handleError = lambda record, handler=handler: _give_up(handler)


def _give_up(handler: logging.StreamHandler) -> None:
    """Tell once, and send what follows, and what is left in the buffer, nowhere."""
    stream, error = handler.stream, sys.exc_info()[1]
    handler.setLevel(logging.CRITICAL + 1)
    if stream in (sys.stdout, sys.stderr):
        return
    name = getattr(stream, "name", "a log")  # streams in memory have none
    print(f"warning: {name} ends here ({error}): make room", file=sys.stderr)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
