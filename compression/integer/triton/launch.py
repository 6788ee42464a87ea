"""One step of a lowered network as launches of a kernel, compiled or interpreted."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.steps import (
    Attention,
    CodesStep,
    Norm,
    Place,
    Product,
    Quantize,
    RealPlace,
    Step,
    Sum,
)
from compression.integer.triton.arguments import (
    TritonWeights,
    alignment,
    bounds,
    codes_window,
    flags,
    memories,
    offsets,
    pixel_bytes,
    power_of_two,
    read_places,
    residual,
    to_device,
    written_places,
)
from compression.integer.triton.config import DEFAULT, Config, candidates
from compression.integer.triton.rows import call_of

KERNEL = "int8_convolution"
"""The kernel that multiplies codes on tensor cores, as the device reports it."""
ROWS, CHANNELS = 32, 64
"""The tile of a kernel that multiplies no matrices."""
REALS = 4096
"""Numbers that a program makes codes of."""


@cache
def kernels(*, interpreted: bool) -> ModuleType:
    """Return the kernels, compiled for the device or run by Triton's interpreter on the CPU.

    What `triton.jit` makes depends on a setting at import, so that each has a package of its own.
    """
    from triton import knobs

    name = f"{__package__}.kernels_{'interpreted' if interpreted else 'compiled'}"
    folder = Path(__file__).with_name("kernels")
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its files import from one another
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpreted
        spec.loader.exec_module(module)
    return module


class Launch:
    """A step, and what its kernel needs on `device`."""

    def __init__(self, step: Step, device: torch.device) -> None:
        """Copy the step's tensors to the device; a convolution starts with the default tiles."""
        self.name, self.device = step.name, device
        self.step = to_device(step, device)
        # Of what reads codes, and of what writes them or reads a residual.
        self.align, self.out_align = alignment(read_places(step)), alignment(written_places(step))
        self.config = DEFAULT
        self._no_taps = torch.zeros(1, dtype=torch.int32, device=device)
        self._packed: dict[int, Tensor] = {}
        self._shared: dict[Config, tuple[Tensor, Tensor]] = {}

    @property
    def packed(self) -> TritonWeights | None:
        """Return a convolution's weights; None for another step."""
        weights = self.step.weights if isinstance(self.step, Product) else None
        return weights if isinstance(weights, TritonWeights) else None

    def __call__(self, images: int, inputs: Tensor, outputs: Tensor) -> None:
        """Launch for so many images of the network's real inputs, and its real outputs."""
        match self.step:
            case Quantize() as step:
                self._quantize(step, images, inputs)
            case Product(weights=TritonWeights() as packed) as step:
                self._convolution(step, packed, images, outputs)
            case Norm() | Attention() | Sum() as step:
                call = call_of(step, images)
                self._kernel(call.kernel)[call.grid](
                    *call.args, **call.named, **self._aligned(), enable_fp_fusion=False
                )
            case CodesStep() as step:
                self._pointwise(step, images, outputs)

    def candidates(self, images: int) -> list[Config]:
        """Return the configurations worth trying for so many images; none for another kernel."""
        if self.packed is None:
            return []
        channels, runs, length = self.packed.weights.shape
        return candidates(images * self.step.pixels, channels, runs, length)

    def choose(self, config: Config) -> None:
        """Take `config`, and give back what others that were tried hold on the device."""
        self.config = config
        self._packed = {k: v for k, v in self._packed.items() if k == config.block_k}
        self._shared = {k: v for k, v in self._shared.items() if k == config}

    def work(self, images: int) -> tuple[int, int]:
        """Return a convolution's multiply-accumulates, and the bytes that it must move."""
        step, packed = self.step, self.packed
        assert isinstance(step, Product)
        assert packed is not None
        outputs = images * step.pixels * step.channels
        written = outputs * (4 if isinstance(step.output, RealPlace) else 1)
        read = images * packed.input_bytes + step.channels * packed.depth
        added = 0 if step.residual is None else outputs
        return outputs * packed.depth, read + added + written

    def _kernel(self, name: str) -> Any:
        return getattr(kernels(interpreted=self.device.type == "cpu"), name)

    def _quantize(self, step: Quantize, images: int, inputs: Tensor) -> None:
        assert isinstance(step.output, Place)
        rows, pixel = images * step.pixels, pixel_bytes(step.channels)
        block_n = min(CHANNELS, power_of_two(pixel))
        block_m = min(128, REALS // block_n)
        steps = (1, step.pixels) if step.by_channel else (step.channels, 1)
        self._kernel("int8_quantize")[(-(-rows // block_m), -(-pixel // block_n))](
            inputs, step.output.memory, step.output.offsets, step.output.stride,
            rows, step.pixels, step.channels, *steps, step.scale, **bounds(step),
            PIXEL=pixel, OUT_ALIGN=self.out_align, BLOCK_M=block_m, BLOCK_N=block_n,
            enable_fp_fusion=False,
        )  # fmt: skip

    def _convolution(
        self, step: Product, packed: TritonWeights, images: int, outputs: Tensor
    ) -> None:
        c, rows, channels = self.config, images * step.pixels, step.channels
        weights = self._weights(packed, c.block_k)
        blocks = weights.shape[1] // c.block_k
        tiles = -(-rows // c.block_m) * -(-channels // c.block_n)
        workspace, arrivals = self._workspace(step, rows, tiles)
        self._kernel(KERNEL)[(tiles, c.splits)](
            step.input.memory, weights, step.bias, step.multiplier, *memories(step, outputs),
            workspace, arrivals, *offsets(step), rows, step.pixels, channels,
            packed.across, packed.high, packed.back, packed.down, packed.right,
            blocks // packed.weights.shape[1], blocks,
            **residual(step), **bounds(step), **flags(step), **self._aligned(),
            BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, SPLITS=c.splits,
            num_warps=c.num_warps, num_stages=c.num_stages, enable_fp_fusion=False,
        )  # fmt: skip

    def _pointwise(self, step: CodesStep, images: int, outputs: Tensor) -> None:
        rows, channels, unused = images * step.pixels, step.channels, step.input.memory
        block, own = min(CHANNELS, max(16, power_of_two(channels))), codes_window(step)
        filters = (unused,) * 3 if own.filters is None else own.filters
        self._kernel("int8_pointwise")[(-(-rows // ROWS) * -(-channels // block), 1)](
            step.input.memory, *filters, *memories(step, outputs),
            self._no_taps if own.taps is None else own.taps, *offsets(step),
            rows, step.pixels, channels,
            1 if own.taps is None or own.kind == "gather" else len(own.taps), own.across, own.pixel,
            step.input.zero, own.scale, **residual(step), **bounds(step), **flags(step),
            **self._aligned(), KIND=own.kind, BLOCK_M=ROWS, BLOCK_N=block, enable_fp_fusion=False,
        )  # fmt: skip

    def _aligned(self) -> dict[str, int]:
        return {"ALIGN": self.align, "OUT_ALIGN": self.out_align}

    def _weights(self, packed: TritonWeights, block_k: int) -> Tensor:
        """Return the weights (O, bytes), zeros after each run up to a whole number of blocks."""
        if block_k not in self._packed:
            padded = F.pad(packed.weights, (0, -packed.weights.shape[2] % block_k))
            self._packed[block_k] = padded.flatten(1).contiguous()
        return self._packed[block_k]

    def _workspace(self, step: Product, rows: int, tiles: int) -> tuple[Tensor, Tensor]:
        """Return sums and counts that programs share: zeros, which each launch leaves as zeros."""
        if self.config.splits == 1:
            return step.bias, step.bias
        numel = rows * step.channels
        shared = self._shared.get(self.config)
        if shared is None or shared[0].numel() < numel:
            zeros = step.bias.new_zeros
            shared = self._shared[self.config] = zeros(numel), zeros(tiles)
        return shared
