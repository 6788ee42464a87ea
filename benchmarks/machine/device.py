"""The processor or card that a time was measured on, by name."""

import platform
import re
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """Return the model of the CPU or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if match:
            return match[1].strip()
    return platform.processor() or platform.machine()
