"""What the figures of a machine are told with."""

import os
import platform
from pathlib import Path


def processor() -> str:
    """Name of the processor and its number of cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def num_gpus() -> int:
    """How many GPUs PyTorch can use; the driver may count some that are too new or old for it."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_name(device: str) -> str:
    """Name of the GPU or the processor that ``device``, as MODEL.DEVICE has it, is."""
    if not device.startswith("cuda"):
        return processor()
    import torch

    return torch.cuda.get_device_name(device)
