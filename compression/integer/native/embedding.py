"""Embeddings of codes in compiled code: the rows that are looked up are unpacked."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.integer.native.library import library
from compression.integer.native.linear import overflows
from compression.integer.native.packing import LANES
from compression.modes import ExecutorModel
from compression.quantization import WeightQuantizedEmbedding

EMBEDDING_KERNEL = "native::embedding_weights"
"""The name of what looks rows up, beside those of torch's profiler, which does not see it."""


class NativeEmbedding(ExecutorModel):
    """An embedding in compiled code: what the layer looks up, to the bit, on the CPU."""

    def __init__(self, layer: WeightQuantizedEmbedding) -> None:
        """Pack the codes: a byte each, or 4 bits up to 4 bits."""
        super().__init__()
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.padding_idx = layer.padding_idx
        self.table, self._like = pack_table(layer), layer.like
        self._numbers: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """What the codes stand for: some parents read it at each call, so that it stays in memory."""
        if self._numbers is None:
            self._numbers = self(torch.arange(self.num_embeddings, device="cpu"))
        return self._numbers

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be passed by keyword
        """Return the row of each index in `input`, any shape; IndexError for one that has none."""
        indices = input if input.dtype == torch.int64 else self._widened(input)
        if not indices.is_cpu or indices.is_nested:
            raise self._unfit(input)
        indices = indices.contiguous()
        rows = self._like.new_empty(*indices.shape, self.embedding_dim)
        if not library().embedding(
            self.table.data_ptr(), indices.data_ptr(), rows.data_ptr(), indices.numel(),
            torch.get_num_threads(),
        ):  # fmt: skip
            raise IndexError("index out of range in self")
        self.__dict__["kernels_ran"] = {EMBEDDING_KERNEL: 1}
        return rows

    def _widened(self, input: Tensor) -> Tensor:
        if input.dtype != torch.int32:
            raise self._unfit(input)
        return input.long()

    def _unfit(self, input: Tensor) -> CompressionError:
        return CompressionError(
            f"this embedding was deployed for indices of int32 or int64 on the CPU, found "
            f"{input.dtype} on {input.device}; use the network that was deployed"
        )

    def extra_repr(self) -> str:
        """Tell the numbers of rows and columns."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def native_embedding(layer: nn.Module) -> NativeEmbedding | None:
    """Return an embedding of codes in compiled code, None for a layer that it does not know."""
    if not isinstance(layer, WeightQuantizedEmbedding) or not layer.codes.numel():
        return None
    if layer.codes.device.type != "cpu" or layer.like.dtype != torch.float32 or overflows(layer):
        return None
    return NativeEmbedding(layer)


def pack_table(layer: WeightQuantizedEmbedding) -> Tensor:
    """Pack what embedding.c reads: four numbers, scales and codes, as bytes."""
    columns, bits = layer.embedding_dim, 4 if layer.num_bits <= 4 else 8
    head = torch.tensor(
        [layer.num_embeddings, columns, min(layer.group_size or columns, columns), bits],
        dtype=torch.int64, device="cpu",
    )  # fmt: skip
    parts = head, layer.scale, _nibbles(layer.codes) if bits == 4 else layer.codes
    return torch.cat([part.flatten().view(torch.uint8) for part in parts])


def _nibbles(codes: Tensor) -> Tensor:
    """Pack rows of codes of 4 bits in vectors: even columns in the first half of 8 bytes."""
    vectors = F.pad(codes, (0, -codes.shape[1] % LANES)).view(len(codes), -1, 4, 2, 2)
    pairs = (vectors[:, :, :, 0] & 15) | (vectors[:, :, :, 1] << 4)  # int8: upper bits fall off
    return pairs.transpose(2, 3)
