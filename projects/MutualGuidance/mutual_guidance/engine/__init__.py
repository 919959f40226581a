"""Training and evaluation."""

from .setup import ConfigError, load_config, setup
from .trainer import RESULTS_FILE, Trainer

__all__ = ["RESULTS_FILE", "ConfigError", "Trainer", "load_config", "setup"]
