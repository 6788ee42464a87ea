"""A user's own checkpoint: a file of ours, plain safetensors, or torch's zip of a state dict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from compression.errors import CheckpointError, CompressionError
from compression.layers import check_model
from compression.storage.container import check_readable, read
from compression.storage.encoding import check_storable, kind_of, memory_of, same_bits
from compression.storage.rebuild import compare, fill, make_network, rebuild, release
from compression.storage.torch_file import is_zip, read_torch
from compression.storage.wrapped import State, rename_keys, state_in


def load_checkpoint(path: Path | str, factory: Callable[[], nn.Module]) -> nn.Module:
    """Return `factory`'s network with the weights at `path`, in eval mode on the CPU.

    It takes what `save` wrote, a safetensors state dict, or torch.save of one, read with weights_only.
    The state dict may stand under "state_dict", "model_state_dict", "model" or the like, and its
    names may begin with "module." (DataParallel) and hold "_orig_mod." (torch.compile). Plain
    safetensors have no checksum: nobody can tell what a flipped bit does to their values. Raises
    CheckpointError for everything else: several networks in one file, another architecture, integers
    for floats, NaN, code, damage.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"state_dict": nn.Linear(8, 4).state_dict()}, Path(folder) / "model.pt")
    ...     load_checkpoint(Path(folder) / "model.pt", lambda: nn.Linear(8, 4))
    Linear(in_features=8, out_features=4, bias=True)
    """
    path = check_readable(path)
    network = make_network(factory)
    try:
        if is_zip(path):
            model = _plain(path, *state_in(path, read_torch(path)), network)
        else:
            content = read(path)
            model = (
                _plain(path, content.entries, {}, network)
                if content.about is None
                else rebuild(path, content, content.about, release(network))
            )
        check_model(model)
    except CheckpointError:
        raise
    except CompressionError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return model


def _plain(path: Path, state: State, versions: dict[str, Any], model: nn.Module) -> nn.Module:
    """Fill `model`; what it ties stays tied, and a file may hold such a tensor once.

    `versions` are what the state dict notes of its modules, none where it notes nothing.
    """
    expected = model.state_dict()
    state, versions = rename_keys(path, state, versions, expected.keys())
    for name, tensor in state.items():
        check_storable(name, tensor)
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
    fill(path, model, state, versions)
    return model.eval()
