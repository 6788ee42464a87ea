"""The state dict in what people save around it, under the names that its network has."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from compression.errors import CheckpointError

State = dict[str, Tensor]
Versions = dict[str, Any]
"""What torch notes of each module beside a state dict: its version."""

_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights",
    "model_ema", "model_ema_state_dict", "state_dict_ema", "ema_state_dict", "ema",
)  # fmt: skip
_DEPTH = 3  # of keys within keys
_PREFIXES = ("module.", "_orig_mod.")
_COMPILED = "_orig_mod."


def state_in(path: Path, loaded: Any) -> tuple[State, Versions]:
    """Return the one state dict in what torch.load read, and its versions.

    CheckpointError where there is none, or where there are several and nothing tells which.
    """
    for _ in range(_DEPTH):
        if not isinstance(loaded, Mapping):
            break
        inner = [key for key in _KEYS if isinstance(loaded.get(key), Mapping)]
        if len(inner) > 1:
            raise CheckpointError(
                f"{path}: holds several networks, under {', '.join(map(repr, inner))}; save the "
                "state dict that you mean alone"
            )
        if not inner:
            break
        loaded = loaded[inner[0]]
    if not isinstance(loaded, dict):
        found = type(loaded).__name__
        raise CheckpointError(f"{path}: expected a state dict, found {found}")
    if not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in loaded.items()):
        found = ", ".join(f"{n!r}: {type(t).__name__}" for n, t in list(loaded.items())[:8])
        raise CheckpointError(
            f"{path}: expected a state dict of tensors, alone or under one of the keys "
            f"{', '.join(_KEYS[:4])}, found {found}"
        )
    versions = getattr(loaded, "_metadata", None)
    return dict(loaded), dict(versions) if isinstance(versions, Mapping) else {}


def rename_keys(
    path: Path, state: State, versions: Versions, expected: Collection[str]
) -> tuple[State, Versions]:
    """Return both under the network's names: without what DataParallel and torch.compile add."""
    for prefix in _PREFIXES * 2:  # either may stand before the other
        alone = not any(name.startswith(prefix) for name in expected)
        if state and alone and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            versions = {
                f"{name}.".removeprefix(prefix).removesuffix("."): v for name, v in versions.items()
            }
    if any(_COMPILED in name for name in expected):
        return state, versions
    names = {name.replace(_COMPILED, "") for name in state}
    if len(names) < len(state):
        raise CheckpointError(f"{path}: names that differ by {_COMPILED!r} alone; save one of them")
    state = {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}
    versions = {
        f"{name}.".replace(_COMPILED, "").removesuffix("."): v for name, v in versions.items()
    }
    return state, versions
