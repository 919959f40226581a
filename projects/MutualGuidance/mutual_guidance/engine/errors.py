"""What ends a command with one sentence instead of a traceback."""

from ..checkpoint import CheckpointError
from ..data import DatasetError


class ConfigError(RuntimeError):
    """A config that cannot run; the message says which key to mend."""


class OutputError(RuntimeError):
    """An output folder that cannot be used; the message says why."""


class NonFiniteLoss(RuntimeError):
    """A loss that is infinite or NaN; the message names the iteration and the images."""


USER_ERRORS = (CheckpointError, ConfigError, DatasetError, NonFiniteLoss, OutputError)


def sentence(error: Exception) -> str:
    """What an error says, without the traceback that PyTorch puts before one of a loader worker."""
    text = str(error)
    if "Original Traceback" not in text:
        return text
    return text.strip().splitlines()[-1].partition(": ")[2]
