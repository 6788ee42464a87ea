"""save proves its file: what would not come back is refused before a byte is written."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from compression.errors import CheckpointError, CompressionError, UnsupportedTypeError
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.storage import contents, load, save
from tests.support.storage_nets import Factory, Holds, Versioned, digest

X = torch.ones(2, 4)


class State(nn.Linear):
    """Keeps a tensor beside its weights."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.calls = torch.zeros(2)

    def get_extra_state(self) -> Tensor:
        return self.calls

    def set_extra_state(self, state: Tensor) -> None:
        self.calls.copy_(state)


class Locked(nn.Linear):
    """Cannot be copied."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.lock = threading.Lock()


class Renamed(nn.Linear):
    """Saves its weight under a name of its own, and reads it back."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "w"] = destination.pop(prefix + "weight")

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(x))
        return logits


# What comes back, and what it takes.
BACK: dict[str, tuple[Factory, tuple[Tensor, ...]]] = {
    "0-dim": (lambda: Holds(torch.tensor(2.0)), (X,)),
    "empty": (lambda: Holds(torch.empty(0, 3)), (X,)),
    "none": (lambda: Holds(None), (X,)),
    "bool": (lambda: Holds(nn.Parameter(torch.ones(3) > 0, requires_grad=False)), (X,)),
    "integers": (lambda: Holds(nn.Parameter(torch.arange(3), requires_grad=False)), (X,)),
    "expanded": (lambda: Holds(torch.ones(1).expand(5, 3)), (X,)),
    "transposed": (lambda: Holds(nn.Parameter(torch.randn(5, 4).t())), (X,)),
    "negative view": (lambda: Holds(torch.ones(3, dtype=torch.complex64).conj().imag), (X,)),
    "double": (lambda: Holds(torch.ones(2)).double(), (X.double(),)),
    "half": (lambda: Holds(torch.ones(2)).bfloat16(), (X.bfloat16(),)),
    "not persistent": (lambda: Holds(torch.arange(3.0), persistent=False), (X,)),
    "versioned": (lambda: nn.Sequential(Versioned(4, 4)), (X,)),
    "extra state": (lambda: State(4, 4), (X,)),
    "locked": (lambda: Locked(4, 4), (X,)),
    "renamed": (lambda: Renamed(4, 4), (X,)),
    "shared": (Shared, (X,)),
    "lstm": (lambda: nn.LSTM(4, 3), ()),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
        (torch.randn(2, 3, 4),),
    ),
}


@pytest.mark.parametrize("kind", BACK)
def test_comes_back(kind: str, tmp_path: Path) -> None:
    factory, inputs = BACK[kind]
    model = factory().eval()
    before = digest(model)
    save(model, tmp_path / "model")
    assert digest(model) == before
    loaded = load(tmp_path / "model", factory)
    assert digest(loaded) == before
    if inputs:
        assert torch.equal(loaded(*inputs), model(*inputs))


class Doubling(nn.Linear):
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict[prefix + "weight"] = state_dict[prefix + "weight"] * 2
        super()._load_from_state_dict(state_dict, prefix, *rest)


class InPlace(nn.Linear):
    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict[prefix + "weight"].data.mul_(2)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class OneWay(nn.Linear):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "w"] = destination.pop(prefix + "weight")


class Unread(nn.Linear):
    def get_extra_state(self) -> Tensor:
        return torch.ones(2)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()


def in_groups(size: int) -> nn.Module:
    return quantize_weights(small(), group_size=size)


def beside(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Linear(4, 4)).eval()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "doubling": (lambda: Doubling(4, 4), "does not keep what its own state dict holds.* weight"),
    "doubling, large": (lambda: Doubling(99, 99), "does not keep what its own state dict holds"),
    "in place": (lambda: InPlace(4, 4), "does not keep|does not load its own state dict"),
    "in place, large": (lambda: InPlace(99, 99), "does not load its own state dict"),
    "one way": (lambda: OneWay(4, 4), "does not load its own state dict.*Missing key"),
    "unread state": (lambda: Unread(4, 4), "does not load its own state dict.*_extra_state"),
    "lazy": (lambda: nn.LazyLinear(4), "weight: expected a tensor with data"),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(4, 4)), "computed at each call"),
    "unsigned": (lambda: Holds(torch.ones(2).to(torch.uint16)), "odd: .* found torch.uint16"),
    "no network": (lambda: small().state_dict(), r"network \(nn.Module\), found OrderedDict"),
    "a class": (lambda: nn.Linear, r"network \(nn.Module\), found type"),
    "static inside": (lambda: beside(quantize_static(small(), X)), "0 is StaticQuantizedModel"),
    "static's inside": (
        lambda: quantize_static(small(), X).network,
        "is Quantize, of a compressed network",
    ),
    "cast inside": (lambda: beside(cast(small(), torch.bfloat16)), "0 is CastModel"),
    # Two groups in either: the scales have one shape, and the outputs were wrong.
    "other groups": (
        lambda: nn.Sequential(in_groups(2), in_groups(3)),
        "1.0: expected one num_bits and group_size",
    ),
    "other bits": (
        lambda: nn.Sequential(quantize_weights(small()), quantize_weights(small(), num_bits=4)),
        "1.0: expected one num_bits and group_size",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_not_come_back_is_refused(kind: str, tmp_path: Path) -> None:
    make, match = REFUSED[kind]
    model = make()
    before = digest(model) if isinstance(model, nn.Module) and kind != "lazy" else None
    with pytest.raises(CompressionError, match=f"(?s){match}"):
        save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    assert before is None or digest(model) == before


COMPOSED: dict[str, tuple[Callable[[], nn.Module], Factory]] = {
    "weights": (lambda: nn.Sequential(in_groups(3)), lambda: nn.Sequential(small())),
    "dynamic": (lambda: nn.Sequential(quantize_dynamic(small())), lambda: nn.Sequential(small())),
    "weights in part": (lambda: beside(in_groups(2)), lambda: beside(small())),
    "dynamic in part": (lambda: beside(quantize_dynamic(small())), lambda: beside(small())),
    "weights, cast": (lambda: cast(in_groups(2), torch.bfloat16), small),
    "dynamic, cast": (lambda: cast(quantize_dynamic(small()), torch.float16), small),
    "weights of halves": (lambda: quantize_weights(halves()), lambda: halves()),
}


def halves() -> nn.Module:
    """Return a network whose state dict tells no dtype once its weights are codes."""
    return nn.Sequential(nn.Linear(4, 4, bias=False)).bfloat16().eval()


@pytest.mark.parametrize("kind", COMPOSED)
def test_what_is_compressed_in_part_or_twice_comes_back(kind: str, tmp_path: Path) -> None:
    make, factory = COMPOSED[kind]
    model = make().eval()
    save(model, tmp_path / "model")
    loaded = load(tmp_path / "model", factory)
    inputs = X.bfloat16() if kind == "weights of halves" else X
    assert digest(loaded) == digest(model)
    assert torch.equal(loaded(inputs), model(inputs))


def test_codes_of_halves_are_not_loaded_as_codes_of_floats(tmp_path: Path) -> None:
    for model, factory in ((halves(), lambda: halves().float()), (halves().float(), halves)):
        save(quantize_weights(model), tmp_path / "model")
        with pytest.raises(
            CheckpointError, match=r"0\.like is a buffer that a state dict leaves out"
        ):
            load(tmp_path / "model", factory)


FACTORIES: dict[str, tuple[Any, type[Exception], str]] = {
    "a network": (nn.Linear(4, 4), CompressionError, "a function that returns a fresh network"),
    "a text": ("resnet18", CompressionError, "a function that returns .* found str"),
    "of nothing": (lambda: None, CompressionError, "factory returned NoneType"),
    "lazy": (lambda: nn.LazyLinear(4), UnsupportedTypeError, "weight: its shape is not known"),
}


@pytest.mark.parametrize("kind", FACTORIES)
def test_a_factory_of_no_network_to_fill(kind: str, tmp_path: Path) -> None:
    save(nn.Linear(4, 4), tmp_path / "model")
    factory, error, match = FACTORIES[kind]
    with pytest.raises(error, match=match):
        load(tmp_path / "model", factory)


@pytest.mark.parametrize("path", [None, 3, b"model", ["model"], "a\0b"], ids=repr)
def test_what_is_no_path(path: Any) -> None:
    match = "null byte" if isinstance(path, str) else "expected the path of a"
    for call in (lambda: save(nn.Linear(2, 2), path), lambda: load(path), lambda: contents(path)):
        with pytest.raises(CheckpointError, match=match):
            call()


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="found a device or pipe"):
        load(tmp_path / "pipe")
