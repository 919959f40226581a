"""The precision in which a device trains fastest, and that which it has no instructions for."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..errors import ConfigError
from ..machine import device_name
from .device import chosen_device, has_gpu

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}

logger = logging.getLogger(__name__)


def resolve_precision(cfg: CfgNode) -> None:
    """
    SOLVER.AMP.PRECISION "auto" to what MODEL.DEVICE, which is resolved, does well, or what suits
    the devices of all processes, which must all call this.
    """
    amp = cfg.SOLVER.AMP
    if not amp.ENABLED or amp.PRECISION != "auto":
        return
    found = set(comm.all_gather(best_precision(cfg.MODEL.DEVICE)))
    where = "this device" if len(found) == 1 else "the devices of all processes"
    if len(found) > 1:  # a step is of one precision
        found = {"float16" if cfg.MODEL.DEVICE.startswith("cuda") else "float32"}
    (precision,) = found
    amp.ENABLED = cfg.MODEL.CHANNELS_LAST = precision in PRECISIONS
    if amp.ENABLED:
        amp.PRECISION = precision
    layout = "channels-last" if cfg.MODEL.CHANNELS_LAST else "channels-first"
    logger.info(
        f"SOLVER.AMP.PRECISION auto is {precision} on {where}, {layout}; other choices: "
        "SOLVER.AMP and MODEL.CHANNELS_LAST"
    )


def check_precision(cfg: CfgNode) -> None:
    """
    For a training; an evaluation is in float32.

    Raises:
        ConfigError: float16 without a GPU.
    """
    amp = cfg.SOLVER.AMP
    if amp.ENABLED and amp.PRECISION == "float16" and chosen_device(cfg) == "cpu":
        raise ConfigError(
            "SOLVER.AMP.PRECISION float16 needs a GPU: set it to auto, which chooses what the "
            "device does well"
        )


def slow_precision(cfg: CfgNode) -> str:
    """Why a step may take longer than it need, where the precision is to blame, or ""."""
    amp, device = cfg.SOLVER.AMP, chosen_device(cfg)
    measurable = device == "cpu" or has_gpu(device)
    if not (amp.ENABLED and amp.PRECISION == "bfloat16" and measurable):
        return ""
    best = best_precision(device)
    if best == "bfloat16":
        return ""
    cost = (
        "its convolutions are computed in float32 and rounded, no faster than float32 itself"
        if device == "cpu"
        else "a step can take many times as long"
    )
    return (
        f"SOLVER.AMP.PRECISION bfloat16: this device ({device_name(device)}) is not known to have "
        f"instructions for it, and without them {cost} (docs/performance.md); auto takes {best} "
        "here"
    )


@contextmanager
def autocast_on_cpu(precision: torch.dtype) -> Iterator[None]:
    """Compute on a CPU as torch.autocast, with its instructions for bfloat16 or without."""
    emulated = precision == torch.bfloat16 and not _cpu_has_bfloat16()
    with torch.autocast("cpu", precision), RoundedConvolutions() if emulated else nullcontext():
        yield


class RoundedConvolutions(TorchFunctionMode):
    """
    Computes autocast's convolutions, and their gradients, in float32 from values rounded to
    bfloat16 and rounds what comes out: what instructions for it do, which also add up in float32.
    Without them PyTorch's own take many times as long (docs/performance.md).
    """

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        if func is not torch.conv2d or not torch.is_autocast_enabled("cpu"):
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            args, kwargs = tree_map(_rounded, (args, kwargs or {}))
            return func(*args, **kwargs).bfloat16()


def _rounded(value: Any) -> Any:
    return value.bfloat16().float() if torch.is_tensor(value) else value


def best_precision(device: str) -> str:
    """
    "bfloat16" on a GPU of compute capability 8 or more and on a CPU that has instructions for it,
    else "float16" on a GPU and "float32" on a CPU.
    """
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if _cpu_has_bfloat16() else "float32"


@cache
def _cpu_has_bfloat16(path: str = "/proc/cpuinfo") -> bool:
    """Of x86, on Linux; elsewhere PyTorch's bfloat16 was not measured."""
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16)\b", Path(path).read_text()) is not None
    except OSError:
        return False
