"""Properties of static INT8 and its executors, each of one program."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compression.graph import fold_batch_norm
from compression.integer import code_differences, export_onnx, lower_native, lower_onednn
from compression.integer import deploy as deploy_model
from compression.integer.onnx.engines import CompiledModel, compile_onnxruntime
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.bounds import EXECUTORS, STATIC
from tests.support.compared import (
    assert_equal,
    assert_within,
    bounds,
    in_float64,
    poisoned_memory,
    run,
    untouched,
)
from tests.support.program import Program
from tests.support.refusals import attempt

BATCHES = (1, 3, 0)
"""Beside the example's four."""


def folded(program: Program) -> None:
    """Folding batch norms leaves the outputs, in float64 to rounding."""
    net, x = program.build().double(), tuple(t.double() for t in program.inputs())
    with untouched(net):
        found = attempt("fold", program, lambda: fold_batch_norm(net))
    for one, other in zip(run(found, x), run(program.build().double(), x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * float(other.abs().max() + 1))


def quantized(
    program: Program, net: nn.Module | None = None, **options: Any
) -> StaticQuantizedModel:
    """Return the INT8 network of a program, which may be refused."""
    net = program.build() if net is None else net
    x = program.inputs()
    with untouched(net):
        small: StaticQuantizedModel = attempt(
            "static", program, lambda: quantize_static(net, x[0] if len(x) == 1 else x, **options)
        )
    return small


def static(program: Program, net: nn.Module | None = None) -> None:
    """The reference executor lies within what its codes allow, for any number of rows."""
    small, x = quantized(program, net), program.inputs()
    float_net = program.build() if net is None else net
    right = bounds(float_net, x, STATIC)
    assert_within(run(small, x), right, "static INT8, reference executor")
    for count in BATCHES:
        if count or program.runs(0):
            part = [(value[:count], bound[:count]) for value, bound in right]
            assert_within(run(small, tuple(t[:count] for t in x)), part, f"{count} rows")


def native(program: Program) -> None:
    """The C kernels give the reference's bits, for any number of rows, again and again."""
    small, x = quantized(program), program.inputs()
    with poisoned_memory():
        integer = attempt("executor", program, lambda: lower_native(small, x[0]))
        _same_bits(program, small, integer, "native")


def triton(program: Program) -> None:
    """Triton's interpreter gives the reference's bits."""
    from compression.integer import lower_triton

    small, x = quantized(program), program.inputs()
    with poisoned_memory():
        integer = attempt("executor", program, lambda: lower_triton(small, x[0]))
        _same_bits(program, small, integer, "triton")


def _same_bits(program: Program, small: nn.Module, integer: nn.Module, what: str) -> None:
    for count in (4, *BATCHES, 4):
        other = program.inputs(count, seed=2)  # some are clipped
        if count or program.runs(0):
            assert_equal(run(integer, other), run(small, other), f"{what}, {count} rows")


def onednn(program: Program) -> None:
    """torch's integer kernels give the reference's codes but for ties."""
    small, x = quantized(program), program.inputs()
    integer = attempt("executor", program, lambda: lower_onednn(small, x[0], fallback=True))
    differences = code_differences(small, integer, x[0])
    assert all(most <= 1 for most, _ in differences.values()), differences
    _about_the_same(program, small, integer, "onednn")


def onnx_runtime(program: Program) -> None:
    """The file gives the reference's outputs but for ties, in ONNX Runtime."""
    small, x = quantized(program), program.inputs()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        attempt("executor", program, lambda: export_onnx(small, path, x[0]))
        compiled = CompiledModel(lambda shape: compile_onnxruntime(path, shape, num_threads=1))
        _about_the_same(program, small, compiled, "onnxruntime", batches=(4, 1, 3))


def named(program: Program, executor: str) -> None:
    """An executor gives the reference's outputs but for ties, or deploy sees that it does not."""
    small, x = quantized(program), program.inputs()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # another executor was taken
        chosen = attempt("executor", program, lambda: deploy_model(small, x[0], executor=executor))
    _about_the_same(program, small, chosen, executor, batches=(4, 1, 3))


def deployed(program: Program) -> None:
    """What deploy chooses gives the reference's outputs but for ties."""
    small, x = quantized(program), program.inputs()
    chosen = attempt("executor", program, lambda: deploy_model(small, x[0]))
    _about_the_same(program, small, chosen, "deploy")


def _about_the_same(
    program: Program,
    small: nn.Module,
    other: nn.Module,
    what: str,
    batches: tuple[int, ...] = (4, *BATCHES),
) -> None:
    x = program.inputs()
    spread = [bound for _, bound in bounds(program.build(), x, EXECUTORS)]
    for count in batches:
        if count or program.runs(0):
            part = tuple(t[:count] for t in x)
            wanted = run(small, part)
            allowed = [(w.double(), b[:count]) for w, b in zip(wanted, spread, strict=True)]
            assert_within(run(other, part), allowed, f"{what}, {count} rows")


def calibrated(program: Program) -> None:
    """Every choice of ranges, equalized and corrected, gives finite outputs of the right shape."""
    right = in_float64(program.build(), program.inputs())
    for method in ("percentile", "mse", "entropy"):
        small = quantized(program, method=method, equalization=True, bias_correction=True)
        found = run(small, program.inputs())
        assert [t.shape for t in found] == [t.shape for t in right], method
        assert all(bool(torch.isfinite(t).all()) for t in found), method
