"""The processor or card that a time was measured on, by name."""

import platform
import re
from pathlib import Path

import torch

AMX = "amx_int8"
"""The flag of a processor that multiplies int8 on tile registers."""


def device_name(device: torch.device) -> str:
    """Return the model of the CPU or GPU; of a CPU also whether it has AMX, which its name may not say.

    Hosts of a cloud share a name, and INT8 takes half the time where it is multiplied on AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text()
        match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
        if match:
            return match[1].strip() + " with AMX" * (AMX in text.split())
    return platform.processor() or platform.machine()
