"""Linear layers on codes in compiled code: weights of 2 to 8 bits, or codes times codes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams
from compression.errors import CompressionError
from compression.integer.native.library import library
from compression.integer.native.packing import BLOCK, GROUP, LANES
from compression.modes import ExecutorModel
from compression.quantization import DynamicQuantizedLinear, WeightQuantizedLayer
from compression.quantization.products import LONGEST_SUM

WEIGHTS_KERNEL, DYNAMIC_KERNEL = "native::linear_weights", "native::linear_dynamic"
"""The names of what multiplies codes, beside those of torch's profiler, which does not see it."""
NIBBLES = 8
"""Codes of 4 bits in a lane of 32: linear.c."""


class NativeLinear(ExecutorModel):
    """A linear layer in compiled code: float32 in and out, on the CPU, without gradients."""

    def __init__(self, layer: Any) -> None:
        """Take the numbers of features and the bias of `layer`."""
        super().__init__()
        self.in_features, self.out_features = int(layer.in_features), int(layer.out_features)
        self.bias = None if layer.bias is None else layer.bias.detach().contiguous()
        self._numbers: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """What the codes stand for: some parents read it at each call, so that it stays in memory."""
        if self._numbers is None:
            self._numbers = self._unpacked()
        return self._numbers

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be passed by keyword
        """Return `input` (..., features) times the weight, plus the bias."""
        if input.is_nested:
            return torch.nested.as_nested_tensor([self(part) for part in input.unbind()])
        if torch.is_autocast_enabled("cpu"):  # of what layers before it made
            input = input.float()
        if input.dtype != torch.float32 or input.device.type != "cpu" or not input.ndim:
            raise self._unfit(input)
        shape = input.shape
        if shape[-1] != self.in_features:
            raise self._unfit(input)
        rows = input.contiguous()
        outputs = torch.empty((*shape[:-1], self.out_features), dtype=torch.float32, device="cpu")
        self._multiply(rows, outputs, rows.numel() // self.in_features, self.bias)
        return outputs

    def _multiply(self, rows: Tensor, outputs: Tensor, count: int, bias: Tensor | None) -> None:
        raise NotImplementedError

    def _unpacked(self) -> Tensor:
        raise NotImplementedError

    def _unfit(self, input: Tensor) -> CompressionError:
        return CompressionError(
            f"this layer was deployed for float32 inputs (..., {self.in_features}) on the CPU, found "
            f"{tuple(input.shape)} {input.dtype} on {input.device}; use the network that was deployed"
        )

    def extra_repr(self) -> str:
        """Tell the numbers of features."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class NativeWeightLinear(NativeLinear):
    """Real inputs times codes, which stay packed in memory: a byte each, or 4 bits up to 4 bits."""

    def __init__(self, layer: WeightQuantizedLayer) -> None:
        """Pack the codes of a linear layer."""
        super().__init__(layer)
        self.bits = 4 if layer.num_bits <= 4 else 8
        self.group = min(layer.group_size or self.in_features, self.in_features)
        scale = layer.scale if layer.group_size else layer.scale[:, None]
        self.scale = pack_vectors(scale)
        pack = pack_nibbles if self.bits == 4 else pack_bytes
        self.packed = pack(layer.codes, self.group)

    def _unpacked(self) -> Tensor:
        # Of columns of the identity, each sum has one product that is not 0.
        columns = torch.eye(self.in_features, dtype=torch.float32, device="cpu")
        outputs = columns.new_empty(self.in_features, self.out_features)
        self._multiply(columns, outputs, self.in_features, None)
        return outputs.t().contiguous()

    def _multiply(self, rows: Tensor, outputs: Tensor, count: int, bias: Tensor | None) -> None:
        library().linear_weights(
            rows.data_ptr(), self.packed.data_ptr(), self.scale.data_ptr(),
            None if bias is None else bias.data_ptr(), outputs.data_ptr(), count, self.in_features,
            self.out_features, self.group, self.bits, torch.get_num_threads(),
        )  # fmt: skip
        self.__dict__["kernels_ran"] = {WEIGHTS_KERNEL: 1}


class NativeDynamicLinear(NativeLinear):
    """Rows quantized to 8 bits times codes of 8 bits: what the layer computes, to the bit."""

    def __init__(self, layer: DynamicQuantizedLinear) -> None:
        """Pack the codes."""
        super().__init__(layer)
        self.packed = pack_groups(layer.codes)
        self.scale = pack_vectors(layer.scale[:, None])
        self.sums = pack_vectors(layer.codes.sum(1, keepdim=True, dtype=torch.int32))

    def _unpacked(self) -> Tensor:
        codes = unpack_groups(self.packed, self.out_features, self.in_features)
        return codes * self.scale[: self.out_features, None]

    def _multiply(self, rows: Tensor, outputs: Tensor, count: int, bias: Tensor | None) -> None:
        done = library().linear_dynamic(
            rows.data_ptr(), self.packed.data_ptr(), self.sums.data_ptr(), self.scale.data_ptr(),
            None if bias is None else bias.data_ptr(), outputs.data_ptr(), count, self.in_features,
            self.out_features, torch.get_num_threads(),
        )  # fmt: skip
        if not done:
            raise torch.OutOfMemoryError(f"no memory for the codes of {count} rows")
        self.__dict__["kernels_ran"] = {DYNAMIC_KERNEL: 1}


def native_linear(layer: nn.Module) -> NativeLinear | None:
    """Return a quantized linear layer in compiled code, None for a layer that it does not know."""
    if not isinstance(layer, DynamicQuantizedLinear | WeightQuantizedLayer):
        return None
    codes, bias = layer.codes, getattr(layer, "bias", None)
    real = [layer.like, layer.scale, *([] if bias is None else [bias])]
    if codes.device.type != "cpu" or any(t.dtype != torch.float32 for t in real):
        return None
    if not codes.numel():
        return None
    if isinstance(layer, DynamicQuantizedLinear):
        return NativeDynamicLinear(layer) if layer.in_features <= LONGEST_SUM else None
    if not isinstance(layer.layer, nn.Linear) or overflows(layer):
        return None
    return NativeWeightLinear(layer)


def overflows(layer: Any) -> bool:
    """Tell whether a code stands for a number beyond float32, which affine.py saturates."""
    scale = layer.scale.max()
    return QParams(scale, torch.zeros((), dtype=torch.int32), layer.num_bits).overflows


def _blocks(rows: Tensor) -> list[Tensor]:
    """Return rows by blocks of outputs, the last filled up to 1, 2 or 4 vectors with zeros."""
    blocks = []
    for part in rows.split(BLOCK):
        vectors = -(-len(part) // LANES)
        lanes = LANES * (vectors if vectors < 3 else BLOCK // LANES)
        wide = part.new_zeros(lanes, *part.shape[1:])
        wide[: len(part)] = part
        blocks.append(wide)
    return blocks


def pack_vectors(rows: Tensor) -> Tensor:
    """Pack numbers (outputs, groups) as [block][group][64 outputs], zeros after the last."""
    wide = rows.new_zeros(-(-len(rows) // BLOCK) * BLOCK, rows.shape[1])
    wide[: len(rows)] = rows
    return wide.view(-1, BLOCK, rows.shape[1]).transpose(1, 2).flatten()


def pack_bytes(codes: Tensor, group: int) -> Tensor:
    """Pack codes (outputs, inputs) as [block][input][output]."""
    del group  # they lie side by side
    return torch.cat([block.t().flatten() for block in _blocks(codes)])


def pack_nibbles(codes: Tensor, group: int) -> Tensor:
    """Pack codes of 4 bits as [block][group][8 inputs][output], each group in whole lanes."""
    outputs, inputs = codes.shape
    groups, lanes = -(-inputs // group), -(-group // NIBBLES)
    whole = F.pad(codes, (0, groups * group - inputs)).view(outputs, groups, group)
    whole = F.pad(whole, (0, lanes * NIBBLES - group)).view(outputs, groups * lanes, NIBBLES)
    pairs = (whole[..., 0::2] & 15) | (whole[..., 1::2] << 4)  # int8: the upper bits fall off
    return torch.cat([block.transpose(0, 1).flatten() for block in _blocks(pairs)])


def pack_groups(codes: Tensor) -> Tensor:
    """Pack codes (outputs, inputs) as [block][4 inputs][output][4]."""
    whole = F.pad(codes, (0, -codes.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    return torch.cat([block.transpose(0, 1).flatten() for block in _blocks(whole)])


def unpack_groups(packed: Tensor, outputs: int, inputs: int) -> Tensor:
    """Return what `pack_groups` packed."""
    groups = -(-inputs // GROUP)
    parts = packed.split(groups * GROUP * BLOCK)
    rows = [p.view(groups, -1, GROUP).transpose(0, 1).flatten(1) for p in parts]
    return torch.cat(rows)[:outputs, :inputs]
