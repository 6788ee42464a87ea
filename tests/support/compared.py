"""What every property compares: outputs, bounds, and that an input network is untouched."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compression.nested import tensors_in
from tests.support.bounds import Rounding, UnboundedError, bounded_run

LOOSE = 0.5
"""Of the outputs' norm, where no bound is known: enough to tell a wrong network from a rounded one."""
SMALLEST = 1e-4
"""Beside it: a norm of one number multiplies what rounding leaves of 0 by 1 / sqrt(eps), 316."""


def leaves(outputs: Any) -> list[Tensor]:
    """Return the tensors of a network's outputs."""
    return list(tensors_in(outputs))


@torch.no_grad()
def run(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs of a network for a copy of `inputs`: some forwards write into them."""
    return [leaf.clone() for leaf in leaves(net(*[x.clone() for x in inputs]))]


@torch.no_grad()
def in_float64(net: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the right outputs."""
    import copy

    return run(copy.deepcopy(net).double().eval(), tuple(x.double() for x in inputs))


def assert_equal(found: list[Tensor], wanted: list[Tensor], what: str) -> None:
    """Assert that outputs agree bit for bit."""
    assert [t.shape for t in found] == [t.shape for t in wanted], what
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype, f"{what}: {one.dtype}, wanted {other.dtype}"
        wrong = int((one != other).sum())
        assert torch.equal(one, other), (
            f"{what}: {wrong} of {one.numel()} differ, by up to {float((one - other).abs().max()):.4g}"
            f" of {float(other.abs().max()):.4g}"
        )


def bounds(
    net: nn.Module, inputs: tuple[Tensor, ...], rounding: Rounding
) -> list[tuple[Tensor, Tensor]]:
    """Return values and bounds; a loose bound for a network with operators that have none."""
    try:
        return bounded_run(net, inputs, rounding)
    except (UnboundedError, TypeError, NotImplementedError):
        wanted = in_float64(net, inputs)
        return [(w, torch.full_like(w, LOOSE * float(w.norm()) + SMALLEST)) for w in wanted]


def assert_within(found: list[Tensor], right: list[tuple[Tensor, Tensor]], what: str) -> None:
    """Assert that outputs lie within their bounds of the right values."""
    assert [t.shape for t in found] == [w.shape for w, _ in right], what
    for one, (value, bound) in zip(found, right, strict=True):
        error = (one.double() - value).abs()
        ratio = float((error / bound.clamp(min=1e-30)).nan_to_num(1e9).amax()) if one.numel() else 0
        assert ratio <= 1.0001, (
            f"{what}: an error of {float(error.max()):.4g} on outputs up to "
            f"{float(value.abs().max()):.4g} is {ratio:.3g} times its bound"
        )


def fingerprint(net: nn.Module) -> str:
    """Hash every name, mode, shape and bit of a network."""
    whole = hashlib.sha256()
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        flat = tensor.detach().contiguous().reshape(-1)
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(flat.view(torch.uint8).numpy().tobytes())
    whole.update(repr([(n, type(m), m.training) for n, m in net.named_modules()]).encode())
    return whole.hexdigest()


@contextmanager
def untouched(net: nn.Module) -> Iterator[None]:
    """Assert that a network leaves as it came."""
    before = fingerprint(net)
    yield
    assert fingerprint(net) == before, "the input network was changed"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Let what torch allocates hold NaN or the largest integer: what nobody writes is then seen."""
    before = torch.are_deterministic_algorithms_enabled()
    # torch.use_deterministic_algorithms imports torch's compiler first, which takes seconds.
    set_deterministic = torch._C._set_deterministic_algorithms
    set_deterministic(True, warn_only=False)  # with torch.utils.deterministic's fill
    try:
        yield
    finally:
        set_deterministic(before, warn_only=False)


def decibels(wanted: Tensor, found: Tensor) -> float:
    noise = (wanted - found).double().square().sum()
    return float(10 * torch.log10(wanted.double().square().sum() / noise))
