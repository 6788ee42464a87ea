"""A compressed model <-> its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.layers import check_model
from compression.quantization import restructure, structure_of
from compression.storage.container import header_bytes, pack, unpack
from compression.storage.encoding import check_storable, decode, encode, memory_of, same_bits

_SHOWN = 3  # names that an error lists


def save(model: nn.Module, path: Path | str) -> int:
    """Write `model` to one file, whole or not at all, and return its size in bytes.

    The same model gives the same bytes. Raises CompressionError for a tensor that is not finite or
    has no plain bytes, CheckpointError for a file that cannot be written.
    """
    check_model(model)
    structure = structure_of(model)
    bits = structure["num_bits"] if structure else {}
    entries: dict[str, Tensor] = {}
    tensors: dict[str, dict[str, Any]] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        check_storable(name, tensor)
        first = stored.setdefault(memory_of(name, tensor), name)
        if first != name:
            tensors[name] = {"encoding": "alias", "of": first}
            continue
        tensors[name], added = encode(name, tensor, num_bits=bits.get(name))
        if added.keys() & entries.keys():
            raise CompressionError(f"{name}: the file already has an entry of this name")
        entries.update(added)
    data = pack(entries, {"structure": structure, "tensors": tensors})
    write_atomically(path, data)
    return len(data)


def load(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """Return the model saved at `path`, bit for bit, in eval mode on the CPU.

    `factory` returns a fresh float network of the same architecture; what was tied in the saved
    model is tied, and nothing else. Raises CheckpointError for a file that is missing, damaged, of
    another format or of another architecture.
    """
    path = Path(path)
    entries, about = unpack(path, read_bytes(path))
    if about is None:
        raise CheckpointError(f"{path}: plain safetensors, not a file of ours; use load_checkpoint")
    return rebuild(path, entries, about, factory)


def rebuild(
    path: Path, entries: dict[str, Tensor], about: dict[str, Any], factory: Callable[[], nn.Module]
) -> nn.Module:
    """Return the model that a file's entries and metadata describe."""
    state, structure = _state(path, entries, about["tensors"]), about.get("structure")
    model = factory()
    if structure is not None:
        try:
            model = restructure(model, structure)
        except (CompressionError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{path}: its structure {structure} does not fit the network ({error})"
            ) from error
    compare(path, model, state)
    fill(path, model, state)
    return model.eval()


def _state(
    path: Path, entries: dict[str, Tensor], tensors: dict[str, dict[str, Any]]
) -> dict[str, Tensor]:
    """Return the state dict, in which tied names hold one and the same tensor."""
    aliases = {n: d.get("of") for n, d in tensors.items() if d.get("encoding") == "alias"}
    try:
        state = {n: decode(n, d, entries) for n, d in tensors.items() if n not in aliases}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if entries:
        raise CheckpointError(f"{path}: entries that belong to no tensor: {_few(sorted(entries))}")
    lost = [n for n, of in aliases.items() if not isinstance(of, str) or of not in state]
    if lost:
        raise CheckpointError(f"{path}: aliases of tensors that are not there: {_few(lost)}")
    return {n: state[str(aliases.get(n, n))] for n in tensors}


def compare(path: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Raise CheckpointError where a name, shape or dtype differs from the network's."""
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - state), sorted(state.keys() - expected)
    if missing or extra:
        raise CheckpointError(
            f"{path}: of another architecture; expected but missing: {_few(missing)}; found but "
            f"not expected: {_few(extra)}"
        )
    wrong = [
        f"{name} expected {_kind(want)}, found {_kind(state[name])}"
        for name, want in expected.items()
        if _kind(want) != _kind(state[name])
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: of another architecture or type; convert the weights first: {_few(wrong, '; ')}"
        )


def fill(path: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give `model` the tensors of `state`, tied where they are one and the same tensor.

    Assigned rather than copied in: copying into a network that ties what the file does not would
    let the last name win, and copying into an expanded buffer is an error.
    """
    packed = torch.contiguous_format
    # Copies of their own: packed, and aligned for kernels, which a slice of the file is not.
    own = {id(tensor): tensor.detach().clone(memory_format=packed) for tensor in state.values()}
    parameters: dict[int, nn.Parameter] = {}
    assigned: dict[str, Tensor] = {}
    for name, want in model.state_dict(keep_vars=True).items():
        key = id(state[name])
        assigned[name] = own[key]
        if isinstance(want, nn.Parameter):
            parameter = nn.Parameter(own[key], requires_grad=want.requires_grad)
            assigned[name] = parameters.setdefault(key, parameter)
    model.load_state_dict(assigned, strict=True, assign=True)
    lost = [
        n for n, tensor in model.state_dict().items() if not same_bits(tensor, own[id(state[n])])
    ]
    if lost:
        raise CheckpointError(
            f"{path}: the network keeps other values than the file's in {_few(lost)}; does it share "
            "a layer that the file has twice?"
        )


def contents(path: Path | str) -> dict[str, int]:
    """Return the file's bytes by what they are: values, index, metadata; their sum is its size."""
    path = Path(path)
    data = read_bytes(path)
    entries, about = unpack(path, data)
    names = {} if about is None else about["tensors"]
    masks = [t for n, t in entries.items() if n.endswith("#mask") and n not in names]
    index = sum(mask.numel() for mask in masks) if about is not None else 0
    total = sum(t.numel() * t.element_size() for t in entries.values())
    return {"values": total - index, "index": index, "metadata": header_bytes(data)}


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; CheckpointError where there are none."""
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a model file, {error}") from error
    if not data:
        raise CheckpointError(f"{path}: expected a model file, found an empty one")
    return data


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _few(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (between.join(names[:_SHOWN]) + more) if names else "none"
