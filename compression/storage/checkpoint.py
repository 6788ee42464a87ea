"""A user's own checkpoint: a file of ours, plain safetensors, or torch's zip of a state dict."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CheckpointError, CompressionError
from compression.layers import check_model
from compression.storage.container import read
from compression.storage.encoding import check_storable, kind_of, memory_of, same_bits
from compression.storage.rebuild import compare, fill, rebuild, released

_ZIP_MAGIC = b"PK\x03\x04"
_WRAPPERS = ("state_dict", "model")


def load_checkpoint(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """Return `factory`'s network with the weights at `path`, in eval mode on the CPU.

    Takes what `save` wrote, a safetensors state dict, or torch.save of one (also under the key
    "state_dict" or "model"), read with weights_only. Raises CheckpointError for everything else:
    another architecture, integers for floats, NaN, code, damage.
    """
    path = Path(path)
    zipped = _zipped(path)
    try:
        if zipped is not None:
            model = _plain(path, _torch_state(path, zipped), factory())
        else:
            content = read(path)
            model = (
                _plain(path, content.entries, factory())
                if content.about is None
                else rebuild(path, content, content.about, released(factory()))
            )
        check_model(model)
    except CheckpointError:
        raise
    except CompressionError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model


def _zipped(path: Path) -> bytes | None:
    """Return the bytes of a zip of torch.save, None for another file."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(_ZIP_MAGIC))
            return magic + file.read() if magic == _ZIP_MAGIC else None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a model file, {error}") from error


def _plain(path: Path, state: dict[str, Tensor], model: nn.Module) -> nn.Module:
    """Fill `model`; what it ties stays tied, and a file may hold such a tensor once."""
    for name, tensor in state.items():
        check_storable(name, tensor)
    expected = model.state_dict()
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in expected.items():
        source = first.setdefault(memory_of(name, tensor), name)
        if name not in state and source in state:
            state[name] = state[source]
        elif name not in state and name.endswith("num_batches_tracked"):
            state[name] = tensor  # older torch did not write it, and eval does not read it
        elif source not in state and name in state:
            state[source] = state[name]
    try:
        compare(model, {name: kind_of(tensor) for name, tensor in state.items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    for name, tensor in expected.items():
        source = first[memory_of(name, tensor)]
        if not same_bits(state[name], state[source]):
            raise CheckpointError(f"{path}: {name} and {source} are tied, but the file has two")
        state[name] = state[source]
    fill(path, model, state)
    return model.eval()


def _torch_state(path: Path, data: bytes) -> dict[str, Tensor]:
    _check_zip(path, data)
    try:
        loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors (a whole model, or code), which is not run; save "
            "model.state_dict() instead"
        ) from error
    except Exception as error:  # a crafted pickle raises anything
        raise CheckpointError(f"{path}: damaged torch file ({error!r})") from error
    for key in _WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        found = type(loaded).__name__
        raise CheckpointError(f"{path}: expected a state dict, found {found}")
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in loaded.items()):
        found = ", ".join(f"{n!r}: {type(t).__name__}" for n, t in list(loaded.items())[:3])
        raise CheckpointError(
            f"{path}: expected a state dict of tensors, alone or under the key "
            f"{' or '.join(_WRAPPERS)}, found {found}"
        )
    return dict(loaded)


def _check_zip(path: Path, data: bytes) -> None:
    """Refuse what torch.load does not look at: flipped bits, and entries that inflate."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()):
                raise CheckpointError(f"{path}: compressed entries, which torch.save never writes")
            damaged = archive.testzip()
    except CheckpointError:
        raise
    except Exception as error:  # zipfile's own list is long, and not documented
        raise CheckpointError(f"{path}: damaged or truncated torch file ({error})") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: damaged at {damaged} (CRC); copy the file again")
