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
from compression.storage.container import unpack
from compression.storage.file import fill, read_bytes, rebuild

_ZIP_MAGIC = b"PK\x03\x04"


def load_checkpoint(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """Return `factory`'s network with the weights at `path`, in eval mode on the CPU.

    Takes what `save` wrote, a safetensors state dict, or torch.save of one (also under the key
    "state_dict" or "model"), read with weights_only. Raises CheckpointError for everything else:
    another architecture, integers for floats, NaN, code, damage.
    """
    path = Path(path)
    data = read_bytes(path)
    if data.startswith(_ZIP_MAGIC):
        state = _torch_state(path, data)
    else:
        state, about = unpack(path, data)
        if about is not None:
            return rebuild(path, state, about, factory)
    model = factory()
    for name, buffer in model.state_dict().items():
        if name.endswith("num_batches_tracked") and name not in state:
            state[name] = buffer  # older torch did not write it, and eval does not read it
    fill(path, model, state)
    try:
        check_model(model)
    except CompressionError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model.eval()


def _torch_state(path: Path, data: bytes) -> dict[str, Tensor]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            # torch itself checks neither: a flipped bit would load as another weight, and a
            # deflated entry could claim any size.
            if any(e.compress_type != zipfile.ZIP_STORED for e in archive.infolist()):
                raise CheckpointError(f"{path}: compressed entries, which torch.save never writes")
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path}: damaged at {damaged} (CRC); copy the file again")
        loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors (a whole model, or code), which is not run; save "
            "model.state_dict() instead"
        ) from error
    except (zipfile.BadZipFile, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: damaged or truncated torch file ({error})") from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path}: expected a state dict of tensors, found {type(loaded)}")
    return dict(loaded)
