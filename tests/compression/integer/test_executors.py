"""Which executor runs, and that each gives the reference's answers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compression.errors import CompressionError
from compression.integer import (
    EXECUTORS,
    Executor,
    deploy,
    device_of,
    has_integer_kernels,
    lacking,
)
from compression.quantization import quantize_static
from tests.support.nets import images, residual
from tests.support.places import ROOT
from tests.support.runs import run_program

# executor: (bound on the share of the largest output, reason), where it is not that of its row
TOLERANCES = {
    "native": (0.0, "the same integers, and the same operations on floats in the same order"),
    "onednn": (0.02, "a tie rounds to either side"),
    "onnxruntime": (0.02, "a tie rounds to either side"),
    "openvino": (0.05, "it multiplies by a reciprocal scale, which moves more ties"),
    "triton": (0.0, "the same integers, and the same operations on floats in the same order"),
}
WITHOUT_VNNI = """
import sys, torch
from compression.integer import deploy, has_integer_kernels, lacking
from compression.quantization import quantize_dynamic, quantize_static
from tests.support.nets import images, residual
model = quantize_static(residual(), images())
found = deploy(model, images())
print(has_integer_kernels("cpu"), not lacking("native"), found is model)
torch.save(found(images()), sys.argv[1])
dynamic = quantize_dynamic(residual())
assert torch.equal(deploy(dynamic, images())(images()), dynamic(images()))
"""


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_executor_gives_the_outputs_of_the_reference(executor: str) -> None:
    reason = lacking(executor)
    if reason:
        pytest.skip(reason)
    model = quantize_static(residual(), images())
    place = device_of(executor)
    with torch.inference_mode():
        wanted = model(images())
        deployed = deploy(model.to(place), images().to(place), executor=executor)
        for count in (len(images()), 1):  # another shape than the example's too
            found = deployed(images()[:count].to(place)).cpu()
            error = (found - wanted[:count]).abs().max() / wanted.abs().max()
            bound, _ = TOLERANCES.get(executor, EXECUTORS[executor].tolerance)
            assert error <= bound


def test_a_cpu_whose_products_saturate_runs_the_reference(tmp_path: Path) -> None:
    """oneDNN held to AVX2, where pairs of u8 x s8 products are added in int16; no C compiler."""
    path = tmp_path / "outputs.pt"
    without = {"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path), "CC": ""}
    run = run_program(WITHOUT_VNNI, path, ONEDNN_MAX_CPU_ISA="AVX2", **without)
    said = run.stdout.split()
    assert said == ["False", "False", "True"], f"AVX2 has no exact integer kernel\n{run.stderr}"
    assert "no integer kernels here run the network" in run.stderr
    assert "its products saturate" in run.stderr, "what the machine lacks"
    assert "run layers of quantize_dynamic (the native executor needs a C compiler" in run.stderr
    wanted = quantize_static(residual(), images())(images())
    found = torch.load(path, weights_only=True)
    # The ranges were found in float32 by another instruction set.
    assert (found - wanted).abs().max() <= TOLERANCES["onednn"][0] * wanted.abs().max()


def test_a_faster_executor_that_the_machine_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a compiler: slower, and off by what ties round to, if nobody says so."""
    if reason := lacking("onednn"):
        pytest.skip(reason)
    native = replace(EXECUTORS["native"], missing=lambda: "it needs a compiler")
    monkeypatch.setitem(EXECUTORS, "native", native)
    model = quantize_static(residual(), images())
    with pytest.warns(
        RuntimeWarning, match="it needs a compiler: the onednn executor runs instead"
    ):
        assert type(deploy(model, images())) is type(deploy(model, images(), executor="onednn"))


def test_an_executor_that_cannot_run_says_why() -> None:
    with pytest.raises(CompressionError, match="must be one of native, onednn, openvino"):
        deploy(residual(), images(), executor="tensorrt")
    with pytest.raises(CompressionError, match="statically quantized networks on cpu, found Res"):
        deploy(residual(), images(), executor="openvino")
    with pytest.raises(CompressionError, match=r"networks on cuda, found Static.* on cpu"):
        deploy(quantize_static(residual(), images()), images(), executor="triton")


def test_without_a_gpu_the_triton_executor_says_what_it_lacks(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "needs an NVIDIA GPU of compute capability 8.0" in (lacking("triton") or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert lacking("triton") is not None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert lacking("triton") is None


def test_the_readmes_table_is_that_of_the_rows() -> None:
    readme = (ROOT / "compression" / "integer" / "README.md").read_text()
    section = readme.partition("\n## The executors\n")[2].partition("\n## ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    assert found == [line(e) for line in (what_it_is, how_near_it_is) for e in EXECUTORS.values()]


def what_it_is(executor: Executor) -> str:
    place = {"cpu": "CPU", "cuda": "NVIDIA GPU"}[executor.device]
    needs = ", ".join(executor.packages) or "-"
    unasked = "yes" if executor.preferred else "no"
    return f"| `{executor.name}` | {executor.about} | {place} | {needs} | {unasked} |"


def how_near_it_is(executor: Executor) -> str:
    bound, reason = executor.tolerance
    return f"| `{executor.name}` | {bound:g} | {reason} |"


def test_a_cuda_device_has_no_integer_kernels_here() -> None:
    assert not has_integer_kernels("cuda")
