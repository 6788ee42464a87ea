"""The processor or card that a time was measured on, by name."""

import os
import platform
import re
from pathlib import Path

import torch
from cpuinfo import get_cpu_info

from compression.integer.native.instructions import CHOICE

AMX = "amx_int8"
"""The flag of a processor that multiplies int8 on tile registers."""


def device_name(device: torch.device) -> str:
    """Return the model of the CPU or GPU; of a CPU also whether it has AMX, which its name may not say.

    Hosts of a cloud share a name, and INT8 takes half the time where it is multiplied on AMX. A CPU
    whose kernels are held to fewer instructions is another one.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    held = os.environ.get(CHOICE)
    return _cpu_name() + (f" held to {held}" if held else "")


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match[1].strip() + " with AMX" * (AMX in text.split())
    return str(get_cpu_info().get("brand_raw") or platform.processor() or platform.machine())
