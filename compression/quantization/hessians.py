"""What GPTQ knows of a network: X^T X of each layer's inputs, collected while it is calibrated."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from compression.affine import QParams, check_bits, choose_qparams, dequantize, quantize
from compression.errors import CompressionError
from compression.layers import CONVOLUTIONS, TRANSPOSED, filters, unfilters
from compression.modes import in_own_precision
from compression.quantization.gptq import gptq
from compression.quantization.patches import patches

Rounding = Literal["nearest", "gptq"]
KINDS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
"""Layers whose filters are multiplied with patches of their inputs."""
PER_EXAMPLE = 256
"""Windows that are looked at of each image, signal or row."""
MOST_COLUMNS = 4608
"""Weights of a filter that are rounded with regard to each other: 512 channels of 3x3. A filter of
more is taken in parts: H and the time that it takes grow by the square and the cube."""


class Hessians:
    """X^T X of layers, by name, those of one weight together."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        """Look at `layers`: linear, convolutions and transposed ones."""
        self.layers = layers
        self.found: dict[str, list[Tensor]] = {}
        first: dict[object, str] = {}
        for name, layer in layers.items():  # one weight has one rounding
            first.setdefault(_weight_of(layer), name)
        self.first = {name: first[_weight_of(layer)] for name, layer in layers.items()}

    @torch.no_grad()
    def see(self, name: str, inputs: Tensor) -> None:
        """Take in what a layer is given, if it is one of those that are looked at."""
        if name not in self.layers or not inputs.numel():
            return
        with in_own_precision(inputs):
            rows = patches(self.layers[name], inputs, PER_EXAMPLE * len(inputs)).float()
            new = [part.mT @ part for part in _parts(rows)]
        known = self.found.setdefault(self.first[name], [torch.zeros_like(part) for part in new])
        for total, part in zip(known, new, strict=True):
            total += part

    def rounded(self, *, num_bits: int = 8, group_size: int | None = None) -> dict[str, Tensor]:
        """Return the weights of each layer, as `filters` lays them out, rounded.

        They are symmetric codes times a scale per filter or per group, which are those that the weights
        have themselves; the nearest codes where nothing was seen. CompressionError for inputs that were
        not finite.
        """
        options: Any = {"num_bits": num_bits, "group_size": group_size}
        options["axis"] = 0 if group_size is None else None
        found = {}
        for name in dict.fromkeys(self.first.values()):
            hessian = self.found.get(name, [])
            if not all(bool(part.isfinite().all()) for part in hessian):
                raise CompressionError(
                    f"{name}: its inputs in calibration are NaN or infinite; calibrate on finite inputs"
                )
            layer = self.layers[name]
            weight = filters(layer.weight.detach().float(), layer)  # type: ignore[operator]
            qparams = choose_qparams(weight, name=f"{name}.weight".removeprefix("."), **options)
            codes = _codes(weight, hessian, qparams) if hessian else quantize(weight, qparams)
            found[name] = dequantize(codes, qparams)
        return found

    @torch.no_grad()
    def put(self, rounded: Mapping[str, Tensor]) -> None:
        """Give the layers these weights, in place: to the nearest they are rounded to themselves."""
        for name, rows in rounded.items():
            layer = self.layers[name]
            layer.weight.copy_(unfilters(rows, layer))  # type: ignore[operator]


def check_rounding(rounding: str, weight_bits: int) -> None:
    """Raise CompressionError for options that no rounding has."""
    if rounding not in get_args(Rounding):
        raise CompressionError(f"rounding must be nearest or gptq, found {rounding!r}")
    check_bits(weight_bits, "weight_bits")


def _weight_of(layer: Any) -> object:
    return id(layer.weight), getattr(layer, "groups", 1), isinstance(layer, TRANSPOSED)


def _codes(weight: Tensor, hessian: list[Tensor], qparams: QParams) -> Tensor:
    steps = dequantize(torch.ones_like(weight, dtype=torch.int8), qparams)
    groups = len(hessian[0])
    rows, scales = (t.reshape(groups, len(t) // groups, -1) for t in (weight, steps))
    parts = zip(_parts(rows), hessian, _parts(scales), strict=True)
    codes = torch.cat([gptq(*part, qparams.qmax) for part in parts], 2)
    return codes.to(torch.int8).reshape(weight.shape)


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    """Return `rows` (groups, n, K) in equal parts of at most MOST_COLUMNS columns."""
    return rows.tensor_split(max(1, -(-rows.shape[2] // MOST_COLUMNS)), dim=2)
