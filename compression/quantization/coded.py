"""Codes of one weight, and layers other than products of codes: embeddings and recurrent layers."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compression.affine import QParams, choose_qparams, dequantize, quantize
from compression.quantization.replacement import CodedLayer, Codes


class CodedWeight(CodedLayer):
    """Symmetric codes of a weight, with a scale per row or per group of a row."""

    def __init__(
        self,
        weight: Tensor,
        rows: Tensor,
        name: str,
        codes: Codes | None = None,
        *,
        num_bits: int,
        group_size: int | None,
    ) -> None:
        """Make codes of the `rows` of a `weight`, or take those of the one that it is tied to."""
        if codes is None:
            qparams = choose_qparams(
                rows,
                num_bits=num_bits,
                axis=0 if group_size is None else None,
                group_size=group_size,
                name=name.removeprefix("."),
            )
            codes = quantize(rows, qparams), qparams.scale
        super().__init__(codes, weight)
        self.num_bits, self.group_size = num_bits, group_size
        self._qparams: QParams | None = None

    def rows(self) -> Tensor:
        """Return what the codes stand for, in float32."""
        return dequantize(self.codes, self.qparams())

    def qparams(self) -> QParams:
        """Return what the codes stand for as they are held."""
        if self._qparams is None or self._qparams.scale is not self.scale:
            # Once a device: to check the scales is to wait for a GPU.
            self._qparams = self.qparams_of(self.scale)
        return self._qparams

    def qparams_of(self, scale: Tensor) -> QParams:
        """Return what codes with these scales stand for."""
        axis = 0 if self.group_size is None else None
        zero_point = torch.zeros_like(scale, dtype=torch.int32)
        return QParams(scale, zero_point, self.num_bits, True, axis, self.group_size)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, in the network's dtype."""
        return self.rows().to(self.like.dtype)


class WeightQuantizedEmbedding(CodedWeight):
    """An embedding of codes, of which the rows that are looked up are dequantized."""

    def __init__(
        self, layer: nn.Embedding, name: str, codes: Codes | None = None, **options: Any
    ) -> None:
        """Make codes of the rows of `layer`, or take those of the layer that it is tied to."""
        super().__init__(layer.weight, layer.weight.detach(), f"{name}.weight", codes, **options)
        self.layer = without(layer, "weight")
        self.num_embeddings, self.embedding_dim = layer.num_embeddings, layer.embedding_dim
        self.padding_idx = layer.padding_idx

    def forward(self, input: Tensor) -> Tensor:
        """Return the row of each index in `input`."""
        shape, flat = (*input.shape, self.embedding_dim), input.flatten()
        codes, scale = (part.index_select(0, flat) for part in (self.codes, self.scale))
        if not codes.numel():
            return self.like.new_zeros(shape)
        if self.embedding_dim % (self.group_size or self.embedding_dim) or self.qparams().overflows:
            numbers = dequantize(codes, self.qparams_of(scale))
        else:  # the same product; scales were checked once
            scales = scale.view(len(scale), -1, 1)
            numbers = codes.view(len(scale), scales.shape[1], -1) * scales
        return numbers.to(self.like.dtype).view(shape)


class CodedRecurrent(nn.Module):
    """An LSTM, a GRU or an RNN whose matrices are codes; its biases and options are a layer's."""

    layer: Any

    def __init__(
        self, layer: nn.RNNBase, name: str, make: Callable[[Tensor, str], CodedLayer]
    ) -> None:
        """Hold what `make` returns for each matrix of `layer` and its name."""
        super().__init__()
        self.matrices = nn.ModuleDict()
        for attribute, weight in layer._parameters.items():
            if weight is not None and weight.ndim > 1:
                self.matrices[attribute] = make(weight, f"{name}.{attribute}")
        self.layer = without(layer, *self.matrices)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer, which its parent may read: its hidden size."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name in ("layer", "matrices"):
                raise
            if name in self.matrices:
                return self.matrices[name].weight
            return getattr(self.layer, name)


class WeightQuantizedRecurrent(CodedRecurrent):
    """An LSTM, a GRU or an RNN whose matrices are dequantized at each call; torch's own runs it."""

    def __init__(self, layer: nn.RNNBase, name: str, **options: Any) -> None:
        """Make codes of each matrix of `layer`; its biases stay as they are."""

        def make(weight: Tensor, name: str) -> CodedWeight:
            return CodedWeight(weight, weight.detach(), name, **options)

        super().__init__(layer, name, make)

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return what torch's layer returns: outputs and the last state, or a packed sequence."""
        called = copy.copy(self.layer)
        called._flat_weights = [getattr(self, name) for name in called._flat_weights_names]
        return called(input, hx)


def without(layer: nn.Module, *names: str) -> Any:
    """Return a copy of `layer` without these parameters; it may be held elsewhere too."""
    return _with(layer, dict.fromkeys(names))


def in_float(layer: Any, numbers: Any) -> Any:
    """Return the plain layer that a quantized one was made of, with `numbers(coded weight)`."""
    coded = layer.matrices if isinstance(layer, CodedRecurrent) else {"weight": layer}
    made = {name: nn.Parameter(numbers(one), requires_grad=False) for name, one in coded.items()}
    return _with(layer.layer, made)


def _with(layer: nn.Module, parameters: Mapping[str, nn.Parameter | None]) -> Any:
    """Return a copy of `layer` that holds these parameters in place of its own."""
    made = copy.copy(layer)
    made._parameters = {**layer._parameters, **parameters}
    if isinstance(made, nn.RNNBase):
        made._flat_weights = [made._parameters[name] for name in made._flat_weights_names]
    return made
