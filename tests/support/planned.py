"""Static INT8 by plans other than today's: what files of older writers hold."""

from functools import partial
from typing import Any
from unittest import mock

from torch import Tensor, nn

from compression.quantization import StaticQuantizedModel, quantize_static, static
from compression.quantization.graph import plan_network


def quantize_planned(model: nn.Module, x: Tensor, **options: Any) -> StaticQuantizedModel:
    """Quantize by `plan_network` with these options."""
    with mock.patch.object(static, "plan_network", partial(plan_network, **options)):
        return quantize_static(model, x)
