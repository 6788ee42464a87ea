"""A compressed model <-> its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.layers import check_model
from compression.quantization import restructure, structure_of
from compression.storage.container import header_bytes, pack, unpack
from compression.storage.encoding import decode, encode


def save(model: nn.Module, path: Path | str) -> int:
    """Write `model` to one file, whole or not at all, and return its size in bytes.

    The same model gives the same bytes. Raises CompressionError for a model that holds no plain
    finite tensors, and for a file that cannot be written.
    """
    check_model(model)
    structure = structure_of(model)
    bits = structure["num_bits"] if structure else {}
    entries: dict[str, Tensor] = {}
    tensors: dict[str, dict[str, Any]] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        # Same memory, same view of it: tied.
        identity = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and identity in stored:
            tensors[name] = {"encoding": "alias", "of": stored[identity]}
            continue
        stored[identity] = name
        tensors[name], added = encode(name, tensor, num_bits=bits.get(name))
        if added.keys() & entries.keys():
            raise CompressionError(f"{name}: the file already has an entry of this name")
        entries.update(added)
    data = pack(entries, {"structure": structure, "tensors": tensors})
    write_atomically(path, data)
    return len(data)


def load(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """Return the model saved at `path`, bit for bit, in eval mode on the CPU.

    `factory` returns a fresh float network of the same architecture. Raises CheckpointError for a
    file that is missing, damaged, of another format or of another architecture.
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
    tensors, structure = about.get("tensors"), about.get("structure")
    if not isinstance(tensors, dict) or not isinstance(structure, dict | None):
        raise CheckpointError(f"{path}: damaged metadata (tensors, structure)")
    state = {
        name: decode(name, description, entries)
        for name, description in tensors.items()
        if description.get("encoding") != "alias"
    }
    for name, description in tensors.items():
        if description.get("encoding") == "alias":
            if description.get("of") not in state:
                raise CheckpointError(f"{path}: {name} is an alias of a tensor that is not there")
            state[name] = state[description["of"]]
    model = factory()
    if structure is not None:
        model = restructure(model, structure)
    fill(path, model, state)
    return model.eval()


def fill(path: Path, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy `state` into `model` after comparing every name, shape and dtype."""
    expected = model.state_dict()
    missing, extra = sorted(expected.keys() - state), sorted(state.keys() - expected)
    if missing or extra:
        raise CheckpointError(
            f"{path}: of another architecture; expected but missing: {_few(missing)}; found but "
            f"not expected: {_few(extra)}"
        )
    for name, tensor in state.items():
        want = expected[name]
        if tensor.shape != want.shape or tensor.dtype != want.dtype:
            raise CheckpointError(
                f"{path}: {name} expected {want.dtype} {tuple(want.shape)}, found {tensor.dtype} "
                f"{tuple(tensor.shape)}"
            )
    # Copied, not assigned: what the factory ties stays tied.
    model.load_state_dict(state, strict=True)


def contents(path: Path | str) -> dict[str, int]:
    """Return the file's bytes by what they are: values, index, metadata; their sum is its size."""
    path = Path(path)
    data = read_bytes(path)
    entries, _ = unpack(path, data)
    index = sum(t.numel() for name, t in entries.items() if name.endswith("#mask"))
    total = sum(t.numel() * t.element_size() for t in entries.values())
    return {"values": total - index, "index": index, "metadata": header_bytes(data)}


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; CheckpointError where there are none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: expected a model file, {error.strerror}") from error
    if not data:
        raise CheckpointError(f"{path}: expected a model file, found an empty one")
    return data


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) + more) if names else "none"
