"""What Triton makes of the kernels for a GPU: the compiler needs none."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision

pytest.importorskip("triton", reason="needs the package triton")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from compression.integer import lower_triton
from compression.integer.triton.config import LARGE, SMALL, Config
from compression.integer.triton.launch import Launch, kernels
from compression.quantization import quantize_static
from tests.support import transformer_nets
from tests.support.attention_cases import attending
from tests.support.integer_nets import NETS

HOPPER, AMPERE = 90, 80
FLOATS = ("residual_ratio", "lowest", "highest")
POINTERS = {
    **dict.fromkeys(("input", "weights", "residual", "output"), "*i8"),
    **dict.fromkeys(("bias", "workspace", "arrivals"), "*i32"),
    **dict.fromkeys(("input_offsets", "residual_offsets", "output_offsets"), "*i32"),
    "multiplier": "*fp32",
}
MULTIPLES_OF_16 = ("input_stride", "residual_stride", "output_stride", "channels", "down", "right")
"""Arguments that Triton finds to be multiples of 16 where a layer has 64 channels or more."""


def compiled(config: Config, capability: int) -> Any:
    """Compile the convolution with a residual for a GPU of that compute capability."""
    function = kernels(interpreted=False).int8_convolution
    constants = {
        "HAS_RESIDUAL": True, "REAL": False, "ALIGN": 16, "OUT_ALIGN": 16,
        "BLOCK_M": config.block_m, "BLOCK_N": config.block_n, "BLOCK_K": config.block_k,
        "SPLITS": config.splits,
    }  # fmt: skip
    names = function.arg_names
    types = {**dict.fromkeys(FLOATS, "fp32"), **POINTERS, **dict.fromkeys(constants, "constexpr")}
    divisible = {
        (names.index(n),): [["tt.divisibility", 16]] for n in (*POINTERS, *MULTIPLES_OF_16)
    }
    source = ASTSource(function, {n: types.get(n, "i32") for n in names}, constants, divisible)
    options = {
        "num_warps": config.num_warps, "num_stages": config.num_stages, "enable_fp_fusion": False,
    }  # fmt: skip
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def copied_bytes(ptx: str) -> list[int]:
    """Return the bytes of each asynchronous copy into shared memory."""
    sizes = re.findall(r"cp\.async\.c[ag]\S* \[[^,]*, \[[^,]*, (\w+)", ptx)
    return [int(size, 16) for size in sizes]


def disassembled(cubin: bytes, folder: Path, option: str) -> str:
    """Return what cuobjdump tells of the kernel: "-sass" its instructions, "-res-usage" its needs."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    (folder / "kernel.cubin").write_bytes(cubin)
    command = [str(tool), option, str(folder / "kernel.cubin")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("config", [*LARGE, *SMALL], ids=str)
def test_every_tile_runs_on_hoppers_int8_tensor_cores(config: Config, tmp_path: Path) -> None:
    found = compiled(config, HOPPER)
    ptx = found.asm["ptx"]
    wide = config.block_m >= 64  # what a warp group multiplies at once
    product = r"wgmma\.mma_async\S*\.s32\.s8\.s8" if wide else r"mma\.sync\S*\.s32\.s8\.s8\.s32"
    assert re.search(product, ptx)
    copied = copied_bytes(ptx)
    assert max(copied) == 16, "codes and weights are copied 16 bytes at a time"
    assert len(copied) >= 2 * (config.num_stages - 1), "codes and weights, a copy a stage at least"
    assert "st.global.v4.b32" in ptx or "st.global.v2.b32" in ptx, "codes are stored side by side"
    cubin = found.asm["cubin"]
    fused = "FFMA" in disassembled(cubin, tmp_path, "-sass")
    assert not fused, "it would round once where the reference rounds twice"
    assert "STACK:0 " in disassembled(cubin, tmp_path, "-res-usage"), "no register is spilled"
    assert found.metadata.shared <= 227 * 2**10


@pytest.mark.parametrize("config", [c for c in SMALL if c.splits > 1], ids=str)
@pytest.mark.parametrize("capability", [HOPPER, AMPERE])
def test_sums_that_programs_share_are_read_by_all_threads_before_they_are_cleared(
    capability: int, config: Config
) -> None:
    ptx = compiled(config, capability).asm["ptx"]
    last_read = ptx.rindex("ld.global.cg")
    cleared = re.search(r"st\.global", ptx[last_read:])
    assert cleared is not None
    assert "bar.sync" in ptx[last_read : last_read + cleared.start()]


def test_it_compiles_for_ampere() -> None:
    ptx = compiled(Config(64, 64, 64), AMPERE).asm["ptx"]
    assert re.search(r"mma\.sync\S*\.s32\.s8\.s8\.s32", ptx)


class NoLaunch:
    """A kernel that is compiled for what it is launched with, and never launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.made: list[Any] = []

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(*args: Any, **named: Any) -> None:
            self.made.append(self.kernel.run(*args, grid=grid, warmup=True, **named))

        return launch


def compiling(monkeypatch: pytest.MonkeyPatch, module: Any, capability: int) -> dict[str, NoLaunch]:
    """Let launches compile a module's kernels for a GPU; return them by name."""
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda _: 0,
    )
    monkeypatch.setattr(triton.runtime.driver, "_active", driver, raising=False)
    found = {name: NoLaunch(getattr(module, name)) for name in module.__all__}
    monkeypatch.setattr(Launch, "_kernel", lambda _, name: found[name])
    return found


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> dict[str, NoLaunch]:
    """Let launches compile for an H100."""
    return compiling(monkeypatch, kernels(interpreted=False), HOPPER)


def made_by(kernels_by_name: dict[str, NoLaunch]) -> list[Any]:
    """Return all that was compiled."""
    return [kernel for counted in kernels_by_name.values() for kernel in counted.made]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("net", NETS)
def test_every_launch_of_a_network_compiles(net: str, batch: int, hopper) -> None:
    """The arguments are those of a prediction: 1 and multiples of 16 become constants of the code."""
    torch.manual_seed(0)
    model, x = NETS[net]()
    integer = lower_triton(quantize_static(model, x), x[:batch])
    with torch.inference_mode():
        integer(x[:batch])
    made = made_by(hopper)
    assert len(made) == len(integer.launches)
    assert all(kernel.asm["cubin"] for kernel in made)
    quotients = [kernel.asm["ptx"] for kernel in hopper["int8_quantize"].made]
    assert all("div.rn.f32" in ptx for ptx in quotients), "a quotient is rounded once, to nearest"


def test_a_networks_own_arguments_give_the_wide_copies_and_stores(hopper) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    integer = lower_triton(quantize_static(torchvision.models.resnet18().eval(), x), x)
    with torch.inference_mode():
        integer(x)
    stem, *others, head = [kernel.asm["ptx"] for kernel in hopper["int8_convolution"].made]
    assert "cp.async" in stem, "4 bytes at a time: 3 channels in 4"
    for ptx in others:
        assert set(copied_bytes(ptx)) == {16}
        assert re.search(r"st\.global\.v[24]\.b32", ptx)
    assert "wgmma" in head
    for kernel in [*hopper["int8_quantize"].made, *hopper["int8_pointwise"].made]:
        alone = re.findall(r"(?:ld|st)\.global\.b8", kernel.asm["ptx"])
        assert not alone, "codes are read and written side by side"


@pytest.mark.parametrize("net", ["vit", "encoder, norms first"])
def test_every_launch_of_a_transformer_compiles_and_rounds_as_the_reference(
    net: str, hopper
) -> None:
    model, x = transformer_nets.NETS[net]()
    integer = lower_triton(quantize_static(model, x), x[:2])
    with torch.inference_mode():
        integer(x[:2])
    assert len(made_by(hopper)) == len(integer.launches)
    norms, attentions = (hopper[name].made for name in ("int8_norm", "int8_attention"))
    assert len(norms) > 1
    assert len(attentions) == 2
    for kernel in norms:
        assert "sqrt.rn" in kernel.asm["ptx"], "a root is rounded once, to nearest"
    for kernel in attentions:
        assert re.search(r"mma\S*\.s32\.s8\.s8", kernel.asm["ptx"])
    for kernel in (*norms, *attentions):
        assert "div.rn.f32" in kernel.asm["ptx"], "a quotient is rounded once, to nearest"
        assert not re.search(r"\b(fma\.rn\.f32|\w+\.approx\S*\.f32)", kernel.asm["ptx"])
        assert not kernel.metadata.enable_fp_fusion, "nor may the assembler fuse"


@pytest.mark.parametrize("capability", [AMPERE, HOPPER])
@pytest.mark.parametrize("width", [64, 320], ids=["of ViT-B", "wider than a tile"])
def test_attention_of_real_sizes_runs_on_int8_tensor_cores(
    width: int, capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in [name for name in sys.modules if ".kernels_compiled" in name]:
        monkeypatch.delitem(
            sys.modules, name
        )  # a kernel stays with its first GPU: it takes new ones
    module = kernels.__wrapped__(interpreted=False)
    found = compiling(monkeypatch, module, capability)
    model, x = attending((197, 197), 2, width, width, batch=1)
    integer = lower_triton(quantize_static(model, x), x)
    with torch.inference_mode():
        integer(x)
    (kernel,) = found["int8_attention"].made
    product = (
        r"wgmma\.mma_async\S*\.s32\.s8\.s8" if capability == HOPPER else r"mma\.sync\S*\.s8\.s8"
    )
    assert len(re.findall(product, kernel.asm["ptx"])) >= 3, "scores twice, and values"
    used = disassembled(kernel.asm["cubin"], tmp_path, "-res-usage")
    assert "STACK:0 " in used, "no register is spilled"
    assert kernel.metadata.shared <= 100 * 2**10, "two programs at least on a multiprocessor"
