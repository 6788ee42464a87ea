"""What a state dict leaves out of a network, and the file notes beside the tensors.

    "versions": {module: the version of its class}, where it is not 1 and the class is not torch.nn's
    "unstored": {buffer: what it is to be}, of buffers that are not persistent: a factory makes them

Dtype and shape are followed by numbers: of integers and bools a CRC-32. Floats may differ in their
last bits where another machine makes them: their norm tells them, and the sum of their products with
cos(0), cos(1), ...
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.checks import is_whole
from compression.errors import CheckpointError
from compression.storage.container import octets
from compression.storage.encoding import kind_of

_TOLERANCE = 1e-5  # of the norm: rounding errors of float32 in every element are less


def versions_of(model: nn.Module) -> dict[str, int]:
    """Return the versions that modules' own loading looks at, fit for JSON."""
    return {
        name: version
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(version := module._version, int) and version != 1 and not _of_torch(module)
    }


def _of_torch(module: nn.Module) -> bool:
    """Tell whether a class takes its version from torch, which our own tests pin."""
    owner = next(c for c in type(module).__mro__ if "_version" in vars(c))
    return "_version" not in vars(module) and owner.__module__.startswith("torch.")


def read_versions(path: Path, about: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Return what a file notes of versions as load_state_dict takes it."""
    versions = about.get("versions", {})
    if not isinstance(versions, dict) or not all(is_whole(v) for v in versions.values()):
        raise CheckpointError(f"{path}: damaged metadata (versions)")
    return {name: {"version": version} for name, version in versions.items()}


def unstored_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """Yield the buffers that a state dict leaves out, and whether they are of layers of ours."""
    for path, module in model.named_modules():
        ours = type(module).__module__.startswith("compression.")
        for name in sorted(module._non_persistent_buffers_set):
            tensor = module._buffers.get(name)
            if tensor is not None:
                yield f"{path}.{name}".removeprefix("."), tensor, ours


def note_unstored(model: nn.Module) -> dict[str, list[Any]]:
    """Return dtype and shape of each such buffer, and numbers that tell its values.

    Layers of ours have empty ones, whose dtype is that of their outputs: noted unless it is float32.
    """
    return {
        name: [kind_of(tensor), *_numbers(tensor)]
        for name, tensor, ours in unstored_buffers(model)
        if not ours or (not tensor.numel() and tensor.dtype != torch.float32)
    }


def _numbers(tensor: Tensor) -> list[float]:
    flat = tensor.detach().cpu().contiguous().view(-1)
    if not flat.is_floating_point():
        return [float(zlib.crc32(octets(torch.view_as_real(flat) if flat.is_complex() else flat)))]
    flat = flat.double()
    products = flat * torch.arange(len(flat), dtype=torch.float64).cos()
    return [float(flat.norm()), float(products.sum())]


def check_unstored(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Refuse a filled network whose unsaved buffers are other than those of the saved one."""
    noted = about.get("unstored", {})
    if not isinstance(noted, dict):
        raise CheckpointError(f"{path}: damaged metadata (unstored)")
    found = note_unstored(model)
    ours = {name for name, _, ours in unstored_buffers(model) if ours and name in found}
    for name in sorted(noted.keys() | ours):
        if not _is_alike(found.get(name), noted.get(name)):
            raise CheckpointError(
                f"{path}: {name} is a buffer that a state dict leaves out, and the network has "
                "another than the saved one had; let the factory set it, or make it persistent"
            )


def _is_alike(found: list[Any] | None, expected: Any) -> bool:
    if found is None or not isinstance(expected, list):
        return False
    if len(found) != len(expected) or found[0] != expected[0]:
        return False
    if any(type(number) is not float for number in expected[1:]):
        return False
    limit = _TOLERANCE * found[1] if len(found) > 2 else 0.0
    return all(abs(a - b) <= limit for a, b in zip(found[1:], expected[1:], strict=True))
