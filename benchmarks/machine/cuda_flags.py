"""What a time on a GPU depends on besides the card: TF32, cuDNN, and the versions below torch."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_DRIVER = Path("/proc/driver/nvidia/version")
_CUDNN: Any = torch.backends.cudnn  # torch's annotations lack its newer members


def tf32_matmul() -> bool:
    """Tell whether matrix products of float32 may round their inputs to TF32.

    It is read where torch's older and newer settings meet: reading an older setting after a newer one
    was set is an error.
    """
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def tf32_cudnn() -> bool:
    """Tell whether convolutions of float32 may round their inputs to TF32; torch's default is yes."""
    return bool(_CUDNN.conv.fp32_precision == "tf32")


def cuda_flags() -> dict[str, Any]:
    """Return the settings and versions that a latency on a GPU is recorded with."""
    return {
        "tf32_matmul": tf32_matmul(),
        "tf32_cudnn": tf32_cudnn(),
        "float32_matmul_precision": _matmul_precision(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_version": torch.backends.cudnn.version(),
        "cuda_version": torch.version.cuda,
        "driver_version": driver_version(),
    }


def _matmul_precision() -> str:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was set by fp32_precision, for which torch has no such word
        return str(torch.backends.cuda.matmul.fp32_precision)


def driver_version() -> str | None:
    """Return the version of NVIDIA's kernel driver, None where the system does not tell."""
    try:
        text = _DRIVER.read_text()
    except OSError:
        return None
    match = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return match[0] if match else None


def describe_cuda() -> str:
    """Return the GPU's part of the run's header."""
    matmul, convolutions = ("on" if on else "off" for on in (tf32_matmul(), tf32_cudnn()))
    return (
        f"{torch.cuda.get_device_name()}, TF32 {convolutions} for convolutions and {matmul} for matrix "
        "products, cudnn.benchmark on while latency is measured"
    )


@contextmanager
def autotune(device: torch.device) -> Iterator[None]:
    """Let cuDNN time its algorithms on a GPU: no technique is compared with an untuned baseline.

    Not torch.backends.cudnn.flags, which also sets TF32, by default to on.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
