"""Training and evaluation, and prediction with what they made."""

from .errors import USER_ERRORS, ConfigError, sentence
from .interrupt import Interrupted
from .launch import launch
from .predictor import Predictor
from .setup import load_config, setup, setup_tool
from .trainer import Trainer

__all__ = [
    "USER_ERRORS",
    "ConfigError",
    "Interrupted",
    "Predictor",
    "Trainer",
    "launch",
    "load_config",
    "sentence",
    "setup",
    "setup_tool",
]
