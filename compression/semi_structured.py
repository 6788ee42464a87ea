"""2:4 sparse networks on a GPU's sparse tensor cores, by torch's semi-structured kernels."""

import logging
import warnings
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.nn import functional as F

from compression.errors import CompressionError
from compression.layers import (
    alteration,
    check_model,
    copy_model,
    failing_module,
    replace_everywhere,
)
from compression.modes import ExecutorModel
from compression.pruning import is_n_of_m

log = logging.getLogger(__name__)

DTYPES = (torch.float16, torch.bfloat16)
SEMI_STRUCTURED_KERNELS = (
    ("aten::_cslt_sparse_mm",),
    ("aten::_sparse_semi_structured_addmm",),
    ("aten::_sparse_semi_structured_mm",),
)
"""Sets of kernels, of which one must run whole: cuSPARSELt's, CUTLASS's with and without a bias."""


class SemiStructuredModel(ExecutorModel):
    """Runs `network`, whose layers named in `sparse_layers` multiply on sparse tensor cores.

    It is for prediction, on the device where it was made.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take over `network`, none of whose layers is lowered yet."""
        super().__init__()
        self.network = network
        self.sparse_layers: tuple[str, ...] = ()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the network's outputs."""
        outputs: Tensor = self.network(inputs)
        return outputs


class SparseLinear(nn.Module):
    """A linear layer on a semi-structured weight (outputs, inputs)."""

    parameter_buffers = ("weight", "bias")
    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        """Compress a layer's weight; RuntimeError or ValueError where torch does not take it."""
        super().__init__()
        self.register_buffer("weight", compress(layer.weight.detach().flatten(1).contiguous()))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, input: Tensor) -> Tensor:  # torch's name: it may be passed by keyword
        """Return the outputs (..., outputs) of `input` (..., inputs)."""
        # cuSPARSELt reads rows with a step between them as if they had none.
        rows = input.reshape(-1, input.shape[-1]).contiguous()
        outputs = F.linear(rows, self.weight, self.bias)
        return outputs.reshape(*input.shape[:-1], self.weight.shape[0])


class SparsePointwise(SparseLinear):
    """A 1x1 convolution: a linear layer on the channels of each pixel."""

    def __init__(self, layer: nn.Conv2d) -> None:
        """Compress a convolution's weight, as SparseLinear does."""
        super().__init__(layer)
        self.stride = layer.stride

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs (N, outputs, H, W), channels last, of `input` (N, inputs, H, W)."""
        down, across = self.stride
        pixels = input.permute(0, 2, 3, 1)[:, ::down, ::across]
        outputs = super().forward(pixels).permute(0, 3, 1, 2)
        # torch 2.11's product lies column by column.
        return outputs.contiguous(memory_format=torch.channels_last)


def compress(weight: Tensor) -> Tensor:
    """Return a 2:4 weight (outputs, inputs) as torch's semi-structured tensor.

    RuntimeError where its device, dtype or shape has no kernel.
    """
    with warnings.catch_warnings():
        # Once per process: the interface may change. torch 2.11 and 2.14 share what is used here.
        warnings.filterwarnings("ignore", "The PyTorch API of SparseSemiStructuredTensor")
        return torch.sparse.to_sparse_semi_structured(weight)


@torch.no_grad()
def lower_semi_structured(model: nn.Module, example: Tensor) -> SemiStructuredModel:
    """Return a copy of `model` in eval mode that multiplies on sparse tensor cores where it can.

    These are the float16 and bfloat16 linear layers and 1x1 convolutions without padding or groups
    whose weight is 2:4 (prune_n_of_m, then cast), and whose shape torch's kernels take: each is tried
    on an input shaped as `example` makes it. The other layers stay dense, and so do all without CUDA.

    >>> from compression import cast, prune_n_of_m
    >>> sparse = cast(prune_n_of_m(nn.Sequential(nn.Linear(64, 64))), torch.bfloat16)
    >>> lower_semi_structured(sparse, torch.randn(1, 64))(torch.randn(2, 64)).shape
    torch.Size([2, 64])
    """
    check_model(model)
    lowered = SemiStructuredModel(copy_model(model).eval()).eval()
    sparse = []
    for name, shapes in _input_shapes(lowered.network, example).items():
        dense = lowered.network.get_submodule(name)
        layer = _sparse_layer(dense, name, shapes)
        if layer is not None:
            replace_everywhere(lowered, dense, layer)
            sparse.append(name)
    lowered.sparse_layers = tuple(sparse)
    return lowered


def _input_shapes(network: nn.Module, example: Tensor) -> dict[str, set[Size]]:
    """Return the shapes that each layer which could be sparse is called with."""
    shapes: dict[nn.Module, set[Size]] = {
        m: set() for m in network.modules() if _could_be_sparse(m)
    }

    def record(layer: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        shapes[layer].add(args[0].shape if args else named["input"].shape)

    handles = [layer.register_forward_pre_hook(record, with_kwargs=True) for layer in shapes]
    try:
        if handles:
            network(example)
    except (CompressionError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's code does with the example
        raise CompressionError(
            f"the network cannot take the example: {failing_module(network, error)}: {error}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    # A layer that is never called has its weight read: attention's output layer.
    return {name: shapes[m] for name, m in network.named_modules() if shapes.get(m)}


def _could_be_sparse(layer: nn.Module) -> bool:
    # Not isinstance: a subclass may compute something else.
    if type(layer) is nn.Conv2d:
        pointwise = layer.kernel_size == (1, 1) and layer.groups == 1
        if not pointwise or layer.padding not in ((0, 0), "valid"):
            return False
    elif type(layer) is not nn.Linear:
        return False
    if alteration(layer):
        return False
    return layer.weight.dtype in DTYPES and is_n_of_m(layer.weight)


def _sparse_layer(layer: Any, name: str, shapes: set[Size]) -> SparseLinear | None:
    kind = SparsePointwise if isinstance(layer, nn.Conv2d) else SparseLinear
    try:
        sparse = kind(layer)
        for shape in shapes:
            sparse(layer.weight.new_zeros(shape))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as reason:
        log.info("%s stays dense: %s", name, reason)
        return None
    return sparse
