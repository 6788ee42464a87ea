"""Is the traced graph what the network computes? It is tried before anything is built on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph import row_norms, trace
from compression.layers import copy_model
from compression.nested import named_leaves, structure_of
from compression.quantization.calibration import device_of
from compression.quantization.ends import check_ends
from compression.quantization.transformers import write_out_transformers
from compression.quantization.windows import Sizes, shown_sizes, write_out_windows

SAMPLES = 4
"""Inputs of the first batch that the graph is tried on."""
TOLERANCE = 1e-3
"""Of the largest output: the same operators in the same order leave float32's own error only."""

_WHOLE = (
    "static INT8 is of real inputs; begin after what reads whole numbers, as an embedding does, or "
    "take quantize_dynamic or quantize_weights"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a batch shows of a network that its code does not tell.

    `token_norms` are batch norms after linear layers that read tokens, not rows (N, C); `windows` the
    sizes of maps that attention in windows reads; `sizes` those of an image, where the network was
    followed for images of these sizes only. Files older than `streams` are of networks in which no
    residual stream keeps what rounding leaves; those older than `tail`, of networks whose sums and
    interpolations before the outputs are of codes.
    """

    token_norms: tuple[str, ...] = ()
    windows: Sizes = field(default_factory=dict)
    sizes: tuple[int, ...] | None = None
    streams: bool = False
    tail: bool = False


def trace_in_float32(
    model: nn.Module, windows: Sizes, sizes: tuple[int, ...] | None = None
) -> fx.GraphModule:
    """Return the traced graph of a copy of `model` in float32, for maps and images of these sizes."""
    written = write_out_windows(copy_model(model).float(), windows)
    return trace(write_out_transformers(written), sizes=sizes)


@torch.no_grad()
def trace_and_verify(
    model: nn.Module, batch: Tensor, *, sized: bool = False
) -> tuple[fx.GraphModule, Shown]:
    """Return the traced graph of `model`, in float32, which gives its outputs on `batch`.

    It is that of images of any size, or `sized` for those of the batch. Beside it stands what the
    batch shows. Raises UnsupportedTypeError where the graph gives other
    outputs (writes to a slice, randomness, state in Python, which a trace does not show), and
    CompressionError for inputs that the network cannot take.
    """
    network = copy_model(model).float().eval()
    inputs = batch.to(device_of(network)).float()
    predict = cache(lambda: _outputs(network, inputs, batch.dtype))
    windows = shown_sizes(network, predict)
    sizes = tuple(batch.shape[1:]) if sized else None
    traced = trace_in_float32(network, windows, sizes)
    check_ends(traced.graph)
    wanted = predict()
    with _row_shapes(traced) as shapes:
        found = _outputs(traced, inputs, batch.dtype)
    if structure_of(wanted) != structure_of(found):
        raise UnsupportedTypeError(
            f"{type(model).__name__}: its traced graph returns another structure than its forward, "
            f"{_described(found)} for {_described(wanted)}; return tensors in tuples, lists, "
            "dictionaries or dataclasses"
        )
    for (path, right), (_, other) in zip(
        named_leaves(wanted, Tensor), named_leaves(found, Tensor), strict=True
    ):
        _compare(f"{type(model).__name__}{f', output {path!r}' if path else ''}", right, other)
    norms = tuple(sorted({name for name, shape in shapes if len(shape) != 2}))
    return traced, Shown(norms, windows, sizes)


def _outputs(network: nn.Module, inputs: Tensor, dtype: torch.dtype) -> object:
    try:
        return network(inputs[:SAMPLES].clone())
    except Exception:  # whatever a forward raises, which all inputs tell
        pass
    try:  # a batch of fixed size
        return network(inputs.clone())
    except Exception as error:  # whatever a forward raises for inputs that are not its own
        whole = "" if dtype.is_floating_point else f" as real numbers, found {dtype}: {_WHOLE}"
        raise CompressionError(
            f"{type(network).__name__}: the network cannot take calibration inputs of shape "
            f"{tuple(inputs.shape)}{whole} ({error})"
        ) from error


@contextmanager
def _row_shapes(traced: fx.GraphModule) -> Iterator[list[tuple[str, torch.Size]]]:
    """Give a list that predictions fill with what batch norms after linear layers read."""
    shapes: list[tuple[str, torch.Size]] = []
    handles = []
    for name in {str(node.target) for node in row_norms(traced)}:

        def note(_: Any, args: Any, named: Any, name: str = name) -> None:
            shapes.append((name, args[0].shape if args else named["input"].shape))

        norm = traced.get_submodule(name)
        handles.append(norm.register_forward_pre_hook(note, with_kwargs=True))
    yield shapes
    for handle in handles:
        handle.remove()


def _described(value: object) -> str:
    keys = ", ".join(path for path, _ in named_leaves(value, Tensor) if path)
    return type(value).__name__ + (f" of {keys}" if keys else "")


def _compare(name: str, wanted: Tensor, found: Tensor) -> None:
    bad = int((~torch.isfinite(wanted)).sum())
    if bad:
        raise CompressionError(
            f"{name}: {bad} of its {wanted.numel()} outputs of calibration inputs are "
            "NaN or infinite; calibrate on other inputs, or mend the network"
        )
    largest = wanted.float().abs().amax() if wanted.numel() else torch.zeros(())
    if wanted.shape == found.shape:
        off = (wanted.float() - found.float()).abs()
        if not (off > TOLERANCE * largest).any():
            return
    raise UnsupportedTypeError(
        f"{name}: its traced graph gives other outputs than its forward; it may write "
        "to a part of a tensor, draw at random or keep state in Python, which a trace does not show"
    )
