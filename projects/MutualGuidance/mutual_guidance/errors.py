"""What a person can mend, told in one sentence instead of a traceback."""

import atexit
import gc
import re
import sys
import unicodedata
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")
# Spaces of any width, and what joins the letters of Persian and Hindi and the parts of emoji, are
# not printable to Python.
_ODD = re.compile(r"[^\n\t -~\u00a0\u2000-\u200a\u200c\u200d\u202f\u205f\u3000]")


class UserError(Exception):
    """What a person can mend; the message says what is wrong, where, and what to do."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written or does not fit; the message names the file."""


class ConfigError(UserError):
    """A config that cannot run; the message says which key to mend."""


class DatasetError(UserError):
    """A data set that cannot be trained or evaluated on; the message says what to mend."""


class ExperimentError(UserError):
    """An experiment that cannot run; the message says which key or run is wrong."""


class ExportError(UserError):
    """A detector or an environment that cannot be exported; the message says why."""


class InputError(UserError):
    """Arguments or inputs that cannot be used; the message names them."""


class NonFiniteLoss(UserError):
    """A loss that is infinite or NaN; the message names the iteration and the images."""


class OutputError(UserError):
    """An output folder that cannot be used; the message says why."""


def run_main(
    main: Callable[..., Result], *args: object, interrupted: str = "Interrupted"
) -> Result:
    """
    Return what ``main(*args)`` returns.

    Raises:
        SystemExit: of a :class:`UserError` or OSError, with its sentence; of Ctrl-C, which
            ``interrupted`` tells, with the shell's 130.
    """
    # Python otherwise looks through all of PyTorch's objects for garbage as it ends: a second. Of
    # several processes each has done so, once, when it left their group.
    atexit.register(gc.freeze)
    try:
        return main(*args)
    except (UserError, OSError) as error:
        sys.exit(f"error: {printable(sentence(error))}")
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)


def sentence(error: Exception) -> str:
    """What an error says, without the traceback that PyTorch puts before one of a loader worker."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]


def has_controls(name: str) -> bool:
    """
    Whether a name has control characters, which may steer a terminal and break a table, or halves
    of characters, which no file of text holds.
    """
    return any(unicodedata.category(c) in ("Cc", "Cs") for c in name)


def printable(text: str) -> str:
    """
    The text as a terminal may have it: control characters, which can come with the names of files
    and classes, and bytes that are no UTF-8 stand as escapes.
    """
    return _ODD.sub(lambda odd: odd[0] if odd[0].isprintable() else _escaped(odd[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
