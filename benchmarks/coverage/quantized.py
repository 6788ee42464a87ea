"""Checks of quantization, of half precision, and of the executors."""

import copy

import torch
from torch import nn

from benchmarks.coverage.case import Case, at_least, in_float64, require, sqnr
from compression.graph import fold_batch_norm
from compression.integer import NativeModel, deploy
from compression.layers import left_out
from compression.quantization import cast, quantize_dynamic, quantize_weights

EXACT = 80.0
"""dB that float32 keeps of float64 through these networks."""
STATIC, DYNAMIC = 10.0, 20.0
"""dB below which INT8 is taken for wrong: a lost bias or activation leaves about 0."""
CAST = {torch.float16: 40.0, torch.bfloat16: 20.0}
"""dB: 11 and 8 bits of precision are 66 and 48 dB per operation, less over 20 to 100 layers."""
ROUNDING = 3.0
"""dB that two executors of the same codes may differ by: their sums round differently, and the power of
the noise of 20 outputs spreads by 1.4 dB (chi-square); a lost bias costs ten times as much."""
QUANTIZED_WEIGHTS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def check_fold_batch_norm(case: Case) -> str:
    """Batch norms after a layer are gone, and the outputs are the same."""
    result = fold_batch_norm(case.model)
    at_least(EXACT, result(case.x), case.wanted)
    count = [
        sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
        for model in (case.model, result)
    ]
    return f"{count[0] - count[1]} of {count[0]}"


def check_static(case: Case) -> str:
    """INT8 by the reference executor against float64."""
    return at_least(STATIC, case.reference(case.x), case.wanted)


def check_deploy(case: Case) -> str:
    """The executor that deploy chooses against the reference executor."""
    model = deploy(case.reference, case.x)
    found, wanted = model(case.x), case.reference(case.x)
    if isinstance(model, NativeModel):
        require(torch.equal(found, wanted), f"native differs: {sqnr(found, wanted):.1f} dB")
        return "native"
    at_least(sqnr(wanted, case.wanted) - ROUNDING, found, case.wanted)
    return {"IntegerModel": "onednn", "StaticQuantizedModel": "reference"}.get(
        type(model).__name__, type(model).__name__
    )


def check_onnx(case: Case) -> str:
    """The ONNX file in ONNX Runtime against the reference executor."""
    model = deploy(case.reference, case.x, executor="onnxruntime")
    return at_least(
        sqnr(case.reference(case.x), case.wanted) - ROUNDING, model(case.x), case.wanted
    )


def check_dynamic(case: Case) -> str:
    """Every linear layer is INT8 or listed."""
    result = quantize_dynamic(case.model)
    missed = left_out(result)
    for name, module in result.named_modules():
        if isinstance(module, nn.Linear):
            require(f"{name}.weight" in missed, f"{name} is neither INT8 nor listed by left_out")
    return at_least(DYNAMIC, result(case.x), case.wanted)


def check_8_bits(case: Case) -> str:
    """See _weights."""
    return _weights(case, 8)


def check_4_bits(case: Case) -> str:
    """See _weights."""
    return _weights(case, 4)


def _weights(case: Case, num_bits: int) -> str:
    """The outputs are those of the float network with rounded weights; every matrix is listed."""
    result = quantize_weights(case.model, num_bits=num_bits)
    missed, rounded = left_out(result), copy.deepcopy(case.model)
    layers = dict(rounded.named_modules())
    for name, weight in rounded.named_parameters():
        layer, _, attribute = name.rpartition(".")
        if weight.ndim > 1 and name not in missed:
            known = attribute == "weight" and isinstance(layers[layer], QUANTIZED_WEIGHTS)
            known = known or attribute == "in_proj_weight"
            require(known, f"{name} is neither quantized nor listed by left_out")
            rows = weight.flatten(1)
            scale = rows.abs().amax(1, keepdim=True) / (2 ** (num_bits - 1) - 1)
            weight.copy_(((rows / scale).round() * scale).view_as(weight))
    found = result(case.x)
    at_least(EXACT, found, in_float64(rounded, case.x))
    return f"{sqnr(found, case.wanted):.0f}"


def check_float16(case: Case) -> str:
    """See _cast."""
    return _cast(case, torch.float16)


def check_bfloat16(case: Case) -> str:
    """See _cast."""
    return _cast(case, torch.bfloat16)


def _cast(case: Case, dtype: torch.dtype) -> str:
    """Every floating tensor is of the dtype, outputs are float32."""
    result = cast(case.model, dtype)
    for name, tensor in [*result.named_parameters(), *result.named_buffers()]:
        if tensor.is_floating_point():
            require(tensor.dtype == dtype, f"{name} is {tensor.dtype}")
    found = result(case.x)
    require(found.dtype == torch.float32, f"outputs are {found.dtype}")
    return at_least(CAST[dtype], found, case.wanted)
