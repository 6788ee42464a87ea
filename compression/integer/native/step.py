"""`struct step` of step.h as Python sees it."""

import ctypes

from torch import Tensor
from torch.nn import functional as F

from compression.integer.native.packing import BLOCK
from compression.integer.steps import Step


class CStep(ctypes.Structure):
    """`struct step`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "input", "output", "residual", "weights", "bias", "multiplier",
            "input_offsets", "output_offsets", "residual_offsets", "run_offsets", "bands",
        )),
        *((name, ctypes.c_int64) for name in (
            "input_stride", "output_stride", "residual_stride", "width", "plane",
        )),
        *((name, ctypes.c_int32) for name in (
            "kind", "pixels", "channels", "runs", "groups", "band_count",
            "input_zero", "residual_zero", "output_zero", "low", "high", "real",
        )),
        ("input_scale", ctypes.c_float),
        ("residual_ratio", ctypes.c_float),
    )  # fmt: skip


def compiled(step: Step) -> tuple[CStep, list[Tensor]]:
    """Return a step, and the tensors that its pointers point into: keep them as long as it."""
    tensors = {name: value for name, value in step.fields.items() if isinstance(value, Tensor)}
    for name in {"bias", "multiplier"} & tensors.keys():  # whole blocks are read
        tensors[name] = F.pad(tensors[name], (0, BLOCK)).contiguous()
    values = {name: value for name, value in step.fields.items() if name not in tensors}
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    return CStep(kind=step.kind, **values, **pointers), list(tensors.values())
