"""Training and evaluation, and prediction with what they made."""

from ..interrupt import Interrupted
from .evaluate import evaluate
from .launch import launch
from .predictor import Predictor
from .setup import prepare, setup
from .trainer import Trainer

__all__ = [
    "Interrupted",
    "Predictor",
    "Trainer",
    "evaluate",
    "launch",
    "prepare",
    "setup",
]
