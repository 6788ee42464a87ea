"""The check of removed channels: what stays is what it was, and the rest might have been zeros."""

import copy
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.coverage.case import NUM_CLASSES, Case, at_least, products, require
from compression.accounting import count_macs, count_parameters
from compression.architectures import Architecture
from compression.attention import Attention
from compression.narrow import write_out
from compression.removal import remove_channels
from compression.storage import load, save

MACS = 0.5
SLACK = 1.01
"""Of the budget: by how much the multiply-accumulates may be more."""
ZEROED = 200.0
"""dB that float64 keeps where only the order of sums differs."""
UNEVEN = 1e-3


def check_remove_channels(case: Case) -> str:
    """What is left is part of what was there and gives what zeros would; % of MACs, parameters."""
    whole, x = no_number_twice(case.model), case.x.double()
    result = remove_channels(whole, x, macs=MACS)
    at_least(ZEROED, result(x), with_zeros(whole, result)(x))
    counted = count_macs(result, x[:1])
    found = products(result, x[:1])
    require(counted == found, f"{counted} multiply-accumulates, expected {found}")
    left = found / products(whole, x[:1])
    require(left <= MACS * SLACK, f"{left:.4f} of the multiply-accumulates stay, asked {MACS}")
    parameters = count_parameters(result) / count_parameters(whole)
    _require_stored(case, result.float())
    return f"{100 * left:.0f}, {100 * parameters:.0f}"


def no_number_twice(model: nn.Module) -> nn.Module:
    """Return `model` in float64, moved so that a number tells where it stood."""
    uneven = copy.deepcopy(model).double()
    generator = torch.Generator().manual_seed(0)
    for tensor in uneven.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
            tensor.add_(UNEVEN * noise)
    return uneven


def with_zeros(whole: nn.Module, result: nn.Module) -> nn.Module:
    """Return `whole` with zeros for what `result` lacks; what it has must be unchanged."""
    zeroed = copy.deepcopy(whole)
    heads = [name for name, module in result.named_modules() if isinstance(module, Attention)]
    write_out(zeroed, [f"{name}.q_proj" for name in heads])
    left = result.state_dict()
    for name, tensor in zeroed.state_dict().items():
        for axis, stays in enumerate(_kept(name, tensor, left[name])):
            gone = torch.ones(tensor.shape[axis], dtype=torch.bool).index_fill(0, stays, False)
            tensor.index_fill_(axis, gone.nonzero().view(-1), 0)
    return zeroed


def _kept(name: str, before: Tensor, after: Tensor) -> list[Tensor]:
    """Return which indices along each axis of a tensor stay; nothing where all do."""
    if before.shape == after.shape:
        require(torch.equal(before, after), f"{name} changed")
        return []
    places = (before == after.flatten()[0]).nonzero()
    require(len(places) == 1, f"{name} holds a number that was not there")
    kept, same = [], before
    for axis in range(before.ndim):
        lines = [
            tensor.movedim(axis, -1)[tuple(corner[i] for i in range(before.ndim) if i != axis)]
            for tensor, corner in ((before, places[0]), (after, [0] * before.ndim))
        ]
        alike = lines[0] == lines[1][:, None]
        require(bool((alike.sum(1) == 1).all()), f"{name} holds a number that was not there")
        kept.append(alike.int().argmax(1))
        same = same.index_select(axis, kept[-1])
    require(torch.equal(same, after), f"{name} is no part of what it was")
    return kept


def _require_stored(case: Case, result: nn.Module) -> None:
    """Require that a factory of the whole network loads the smaller one, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        save(result, path)
        loaded = load(path, Architecture(case.name, NUM_CLASSES))
    again = loaded.state_dict()
    for name, tensor in result.state_dict().items():
        require(torch.equal(tensor, again[name]), f"{name} differs once loaded")
    require(torch.equal(loaded(case.x), result(case.x)), "the outputs differ once loaded")
