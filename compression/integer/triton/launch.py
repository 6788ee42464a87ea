"""One step of a lowered network as launches of a kernel, compiled or interpreted."""

import importlib.util
import math
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compression.integer.steps import Geometry, Kind, Step, Window
from compression.integer.triton.config import DEFAULT, Config, candidates

POINTWISE = {
    Kind.DEPTHWISE: "depthwise",
    Kind.MAXIMUM: "maximum",
    Kind.MEAN: "mean",
    Kind.MAP: "map",
}
ROWS, CHANNELS = 32, 64
"""The tile of a kernel that multiplies no matrices."""


@cache
def kernels(*, interpreted: bool) -> ModuleType:
    """Return the kernels, compiled for the device or run by Triton's interpreter on the CPU.

    What `triton.jit` makes depends on a setting at import, so that each has a module of its own.
    """
    from triton import knobs

    name = f"{__package__}.kernels_{'interpreted' if interpreted else 'compiled'}"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("kernels.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with knobs.runtime.scope():
        knobs.runtime.interpret = interpreted
        spec.loader.exec_module(module)
    return module


def pixel_bytes(channels: int) -> int:
    """Return the bytes of a pixel: what one load of a thread takes, or a whole number of them."""
    return 4 if channels <= 4 else -(-channels // 16) * 16


def convolution_fields(
    weights: Tensor, window: Window, inputs: Geometry, _: list[int]
) -> dict[str, Any]:
    """Return a convolution's fields: weights (O, runs, bytes of a run), and where its runs begin."""
    runs, length = window.runs(inputs)
    wide = F.pad(weights.permute(0, 2, 3, 1), (0, inputs.pixel - weights.shape[1]))
    across = len(runs) // window.size[0]
    return {
        "weights": wide.reshape(len(weights), len(runs), length),
        "across": across,
        "down": window.dilation[0] * inputs.row,
        "right": window.dilation[1] * inputs.pixel,
        "depth": weights[0].numel(),
        "input_bytes": inputs.channels * inputs.height * inputs.width,
    }


class Launch:
    """A step, and what its kernel needs on `device`."""

    def __init__(self, step: Step, device: torch.device) -> None:
        """Copy the step's tensors to the device; a convolution starts with the default tiles."""
        self.kind, self.name, self.device = step.kind, step.name, device
        self.fields = {k: _moved(v, device) for k, v in step.fields.items()}
        self.fields.setdefault("run_offsets", torch.zeros(1, dtype=torch.int32, device=device))
        # Of what reads codes, and of what writes them or reads a residual.
        self.align = _alignment(
            step.fields, "input_offsets", "input_stride", "down", "right", "run_offsets", "width"
        )
        self.out_align = _alignment(
            step.fields, "output_offsets", "output_stride", "residual_offsets", "residual_stride"
        )
        self.config = DEFAULT
        self._packed: dict[int, Tensor] = {}
        self._shared: dict[Config, tuple[Tensor, Tensor]] = {}

    def __call__(self, images: int, inputs: Tensor, outputs: Tensor) -> None:
        """Launch for so many images of the network's real inputs, and its real outputs."""
        if self.kind is Kind.QUANTIZE:
            self._quantize(images, inputs)
        elif self.kind is Kind.CONVOLUTION:
            self._convolution(images, outputs)
        else:
            self._pointwise(images, outputs)

    def candidates(self, images: int) -> list[Config]:
        """Return the configurations worth trying for so many images; none for another kernel."""
        if self.kind is not Kind.CONVOLUTION:
            return []
        channels, runs, length = self.fields["weights"].shape
        return candidates(images * self.fields["pixels"], channels, runs, length)

    def choose(self, config: Config) -> None:
        """Take `config`, and give back what others that were tried hold on the device."""
        self.config = config
        self._packed = {k: v for k, v in self._packed.items() if k == config.block_k}
        self._shared = {k: v for k, v in self._shared.items() if k == config}

    def work(self, images: int) -> tuple[int, int]:
        """Return a convolution's multiply-accumulates, and the bytes that it must move."""
        f = self.fields
        outputs = images * f["pixels"] * f["channels"]
        written = outputs * (4 if f.get("real") else 1)
        read = images * f["input_bytes"] + f["channels"] * f["depth"]
        residual = outputs if "residual" in f else 0
        return outputs * f["depth"], read + residual + written

    def _kernel(self, name: str) -> Any:
        return getattr(kernels(interpreted=self.device.type == "cpu"), name)

    def _quantize(self, images: int, inputs: Tensor) -> None:
        f, rows = self.fields, images * self.fields["pixels"]
        pixel = pixel_bytes(f["channels"])
        self._kernel("int8_quantize")[(-(-rows // 128), 1)](
            inputs, f["output"], f["output_offsets"], f["output_stride"],
            rows, f["pixels"], f["channels"], f["input_scale"], **self._bounds(),
            PIXEL=pixel, OUT_ALIGN=self.out_align, BLOCK_M=128, BLOCK_N=_power_of_two(pixel),
            enable_fp_fusion=False,
        )  # fmt: skip

    def _convolution(self, images: int, outputs: Tensor) -> None:
        f, c = self.fields, self.config
        rows, channels = images * f["pixels"], f["channels"]
        weights = self._weights(c.block_k)
        blocks = weights.shape[1] // c.block_k
        tiles = -(-rows // c.block_m) * -(-channels // c.block_n)
        workspace, arrivals = self._workspace(c, rows, tiles)
        self._kernel("int8_convolution")[(tiles, c.splits)](
            f["input"], weights, f["bias"], f["multiplier"], *self._places(outputs),
            workspace, arrivals, *self._offsets(), rows, f["pixels"], channels,
            f["across"], f["down"], f["right"], blocks // f["weights"].shape[1], blocks,
            **self._residual(), **self._bounds(), **self._flags(), **self._aligned(),
            BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, SPLITS=c.splits,
            num_warps=c.num_warps, num_stages=c.num_stages, enable_fp_fusion=False,
        )  # fmt: skip

    def _pointwise(self, images: int, outputs: Tensor) -> None:
        f, rows = self.fields, images * self.fields["pixels"]
        place, block = f["input"], min(CHANNELS, max(16, _power_of_two(f["channels"])))
        self._kernel("int8_pointwise")[(-(-rows // ROWS) * -(-f["channels"] // block), 1)](
            f["input"], f.get("weights", place), f.get("bias", place), f.get("multiplier", place),
            *self._places(outputs), f["run_offsets"], *self._offsets(),
            rows, f["pixels"], f["channels"],
            f.get("runs", 1), f.get("groups", 1), f.get("width", 0),
            f["input_zero"], f.get("input_scale", 1.0), **self._residual(), **self._bounds(),
            **self._flags(), **self._aligned(), KIND=POINTWISE[self.kind], BLOCK_M=ROWS, BLOCK_N=block,
            enable_fp_fusion=False,
        )  # fmt: skip

    def _places(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        output = outputs if self.fields.get("real") else self.fields["output"]
        return self.fields.get("residual", output), output

    def _offsets(self) -> list[Any]:
        f = self.fields
        roles = ("input", "residual" if "residual" in f else "input", "output")
        return [f[f"{r}_offsets"] for r in roles] + [f[f"{r}_stride"] for r in roles]

    def _residual(self) -> dict[str, Any]:
        zero, ratio = self.fields.get("residual_zero", 0), self.fields.get("residual_ratio", 0.0)
        return {"residual_zero": zero, "residual_ratio": ratio}

    def _flags(self) -> dict[str, bool]:
        return {"HAS_RESIDUAL": "residual" in self.fields, "REAL": bool(self.fields.get("real"))}

    def _aligned(self) -> dict[str, int]:
        return {"ALIGN": self.align, "OUT_ALIGN": self.out_align}

    def _bounds(self) -> dict[str, Any]:
        zero = self.fields.get("output_zero", 0)
        bounds = {
            k: float(self.fields[v] - zero) for k, v in (("lowest", "low"), ("highest", "high"))
        }
        return {"output_zero": zero, **bounds}

    def _weights(self, block_k: int) -> Tensor:
        """Return the weights (O, bytes), zeros behind each run up to a whole number of blocks."""
        if block_k not in self._packed:
            weights = self.fields["weights"]
            padded = F.pad(weights, (0, -weights.shape[2] % block_k))
            self._packed[block_k] = padded.flatten(1).contiguous()
        return self._packed[block_k]

    def _workspace(self, config: Config, rows: int, tiles: int) -> tuple[Tensor, Tensor]:
        """Return sums and counts that programs share: zeros, which each launch leaves as zeros."""
        if config.splits == 1:
            return self.fields["bias"], self.fields["bias"]
        numel = rows * self.fields["channels"]
        found = self._shared.get(config)
        if found is None or found[0].numel() < numel:
            zeros = self.fields["bias"].new_zeros
            found = self._shared[config] = zeros(numel), zeros(tiles)
        return found


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device).contiguous() if isinstance(value, Tensor) else value


def _alignment(fields: dict[str, Any], *names: str) -> int:
    """Return the largest power of two up to 16 that divides all of these fields."""
    values = [fields[name] for name in names if name in fields]
    return math.gcd(
        16, *(n for v in values for n in (v.tolist() if isinstance(v, Tensor) else [v]))
    )


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
