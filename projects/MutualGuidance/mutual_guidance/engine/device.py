"""The device that MODEL.DEVICE means, and whether this PyTorch can use it."""

import logging
import os
import re

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import ConfigError
from ..machine import num_gpus

# Of a container, too, only where it has a GPU.
_NVIDIA_DEVICE = "/dev/nvidiactl"
logger = logging.getLogger(__name__)


def chosen_device(cfg: CfgNode) -> str:
    """MODEL.DEVICE, or what "auto" is here."""
    if cfg.MODEL.DEVICE != "auto":
        return cfg.MODEL.DEVICE
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_gpu(device: str) -> bool:
    """Whether ``device``, as MODEL.DEVICE has it, is a GPU that PyTorch finds."""
    name, _, index = device.partition(":")
    index = index or "0"
    return name == "cuda" and index.isdecimal() and int(index) < num_gpus()


def resolve_device(cfg: CfgNode) -> None:
    """
    MODEL.DEVICE "auto" to what there is; a GPU that is named becomes PyTorch's current one.

    Raises:
        ConfigError: for a GPU that is not there, or too old for this PyTorch.
    """
    device = cfg.MODEL.DEVICE
    cfg.MODEL.DEVICE = chosen_device(cfg)
    if device == "auto" and cfg.MODEL.DEVICE == "cpu":
        _tell_no_gpu()
    elif device.startswith("cuda") and not has_gpu(device):
        raise ConfigError(
            f"MODEL.DEVICE is {device!r}, but PyTorch finds no such GPU; use auto or cpu"
        )
    if cfg.MODEL.DEVICE != "cuda" and comm.get_world_size() > 1 and torch.cuda.is_available():
        raise ConfigError(
            f"MODEL.DEVICE is {device!r}, but each of several processes takes a GPU of its own: "
            "use auto, and choose GPUs by CUDA_VISIBLE_DEVICES (set to nothing, it leaves the CPU)"
        )
    if cfg.MODEL.DEVICE.startswith("cuda"):
        _check_capability(cfg.MODEL.DEVICE)
    if cfg.MODEL.DEVICE.startswith("cuda:"):
        torch.cuda.set_device(cfg.MODEL.DEVICE)  # whose memory and waits PyTorch means by default


def _tell_no_gpu() -> None:
    if not os.path.exists(_NVIDIA_DEVICE) or "CUDA_VISIBLE_DEVICES" in os.environ:
        logger.info("No GPU found: running on the CPU")
        return
    cuda = torch.version.cuda
    built = f"for CUDA {cuda}, which needs a driver as new" if cuda else "without CUDA"
    logger.warning(
        f"Running on the CPU: there is a GPU, but not for this PyTorch, which is built {built} "
        "(docs/install.md)"
    )


def _check_capability(device: str) -> None:
    """Raise ConfigError for a GPU that is older than those PyTorch was built for."""
    built = [int(number) for number in re.findall(r"sm_(\d+)", str(torch.cuda.get_arch_list()))]
    major, minor = torch.cuda.get_device_capability(device)
    if built and 10 * major + minor < min(built):
        raise ConfigError(
            f"this PyTorch is built for GPUs of compute capability {min(built) / 10} or more, and "
            f"{torch.cuda.get_device_name(device)} has {major}.{minor}: install one for older CUDA "
            "(docs/install.md), or set MODEL.DEVICE cpu"
        )
