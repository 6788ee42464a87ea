"""Attention on codes: both products are sums of whole numbers, and so is the softmax's.

    s = sum (q - z_q) (k - z_k) + mask                     int32
    a = table[min(round((max s - s) rate), LAST)]          0..255, the largest of each row is 255
    y = sum a (v - z_v) / sum a                            sums exact, rounded once each

A weight is rounded beside the largest of its row, not beside 1: a softmax over many keys keeps its
precision, and nothing is divided before the last sum.
"""

import math

import torch
from torch import Tensor

from compression.affine import INT8_MAX, INT8_MIN, QParams
from compression.attention import added_mask
from compression.errors import CompressionError
from compression.quantization.codes import CodesOfSeveral

LARGEST = 255
"""The weight of a row's largest score."""
STEPS = 160
"""Entries of the table from exp(0) to exp(-1): they differ by less than the weights' own rounding."""
LAST = 1023
"""The last entry, exp(-6.4), is below half a weight: 0."""
TABLE = torch.round(LARGEST * torch.exp(-torch.arange(LAST + 1, dtype=torch.float64) / STEPS))
"""The weight of a score that lies so many steps below its row's largest."""
MOST_MASK = 2**29
"""What a mask adds to a score, at most, in units of it: -inf too."""
MOST_CHANNELS = 4096
"""Channels of a head: with so many, scores and masks are whole numbers of int32."""
_EXACT = 2**24


class QuantizedAttention(CodesOfSeveral):
    """Scaled dot-product attention of codes (..., tokens, channels), requantized.

    Softmax sees the exact products of queries and keys. `scale` is 1 / sqrt(channels) where it is
    None. Vaswani et al. 2017, arXiv:1706.03762.
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: list[QParams],
        output: QParams,
        *,
        scale: float | None,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> None:
        """Attend with queries, keys and values of `inputs`; `mask` is added to the real scores."""
        super().__init__(inputs, output)
        self.scale, self.causal = scale, causal
        device = output.scale.device
        held = None if mask is None else mask.detach().float().to(device).clone()
        self.register_buffer("mask", held)

    def factor(self, channels: int) -> float:
        """Return what the products of queries and keys are multiplied by."""
        return 1 / math.sqrt(channels) if self.scale is None else self.scale

    def unit(self, channels: int) -> float:
        """Return what a step of the scores is worth."""
        return float(self.input_scales[:2].double().prod()) * self.factor(channels)

    def rate(self, channels: int) -> Tensor:
        """Return the table's entries per step of the scores, float32, 0-dim."""
        rate = torch.tensor(self.unit(channels) * STEPS, dtype=torch.float64)
        return rate.clamp(max=torch.finfo(torch.float32).max).float()

    def ratio(self) -> Tensor:
        """Return what makes distances of values steps of the output: float32, 0-dim."""
        return self.input_scales[2] / self.output_scale

    def mask_steps(self, channels: int, queries: int, keys: int) -> Tensor | None:
        """Return what is added to the scores (..., queries, keys), int32; None for nothing."""
        mask = self.mask
        if self.causal:
            before = torch.ones(queries, keys, dtype=torch.bool, device=self.output_scale.device)
            mask = added_mask(~before.tril(), torch.float32)
        if mask is None:
            return None
        steps = (mask.double() / self.unit(channels)).round()
        steps = steps.nan_to_num(nan=0.0).clamp(-MOST_MASK, MOST_MASK)
        return steps.to(torch.int32).broadcast_to(*mask.shape[:-2], queries, keys)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the codes of what the queries attend to."""
        channels = query.shape[-1]
        if channels > MOST_CHANNELS:
            raise CompressionError(
                f"attention on codes takes heads of at most {MOST_CHANNELS} channels, found {channels}"
            )
        q, k, v = self.centred((query, key, value))
        scores = _products(q, k.transpose(-2, -1)).int()
        mask = self.mask_steps(channels, scores.shape[-2], scores.shape[-1])
        if mask is not None:
            scores = scores + mask
        below = (scores.amax(-1, keepdim=True) - scores).float()
        places = torch.round(below * self.rate(channels)).clamp_(max=LAST).int()
        weights = TABLE.float().to(scores.device)[places]
        total = weights.sum(-1, keepdim=True)
        return self.encode(_products(weights, v).float() / total * self.ratio())


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrix product of whole numbers up to LARGEST, exact."""
    if x.shape[-1] * LARGEST * (INT8_MAX - INT8_MIN) < _EXACT:
        return x @ y
    return x.double() @ y.double()
