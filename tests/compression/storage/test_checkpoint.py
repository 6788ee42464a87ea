"""load_checkpoint: what a user may bring as the baseline, and each fault of it."""

import io
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from compression.errors import CheckpointError
from compression.quantization import cast
from compression.storage import load_checkpoint, save
from tests.support.storage_nets import Pair, Small, digest, tied, untied


def network() -> nn.Module:
    torch.manual_seed(1)
    return Small().eval()


State = dict[str, Tensor]


def zipped(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def state(**changes: Any) -> State:
    """Return network()'s state dict, `changes` under names whose dots are double underscores."""
    return {**network().state_dict(), **{k.replace("__", "."): v for k, v in changes.items()}}


ACCEPTED: dict[str, Callable[[], bytes]] = {
    "safetensors": lambda: safetensors.torch.save(state(), {"format": "pt"}),
    "state dict": lambda: zipped(network().state_dict()),
    "plain dict": lambda: zipped(state()),
    "of parameters": lambda: zipped(network().state_dict(keep_vars=True)),
    "wrapped": lambda: zipped({"state_dict": state(), "epoch": 3, "best": 0.9}),
    "resume file": lambda: zipped({"epoch": 3, "model": state(), "optimizer": {"state": {}}}),
    "without num_batches_tracked": lambda: zipped(
        {n: t for n, t in state().items() if not n.endswith("num_batches_tracked")}
    ),
    "channels last": lambda: zipped(network().to(memory_format=torch.channels_last).state_dict()),
    "sliced": lambda: zipped({n: torch.stack([t, t])[1] for n, t in state().items()}),
}


@pytest.mark.parametrize("kind", ACCEPTED)
@pytest.mark.parametrize("name", ["baseline.pt", "baseline.safetensors"])
def test_loads_what_the_content_is_whatever_the_name(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(ACCEPTED[kind]())
    loaded = load_checkpoint(str(path), Small)
    assert digest(loaded) == digest(network())
    assert not loaded.training
    assert all(p.requires_grad and p.is_contiguous() for p in loaded.parameters())


def test_loads_a_file_of_ours(tmp_path: Path) -> None:
    model = cast(network(), torch.bfloat16)
    save(model, tmp_path / "model")
    assert digest(load_checkpoint(tmp_path / "model", Small)) == digest(model)


def test_reads_the_file_rather_than_mapping_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(ACCEPTED["state dict"]())
    loaded = load_checkpoint(path, Small)
    path.write_bytes(bytes(path.stat().st_size))
    assert digest(loaded) == digest(network())


class Opened:
    """A pickle that would leave a mark."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def stride_0(size: tuple[int, ...]) -> Tensor:
    return torch.ones(1).expand(size)


def rezipped(data: bytes, compression: int) -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as source,
        zipfile.ZipFile(buffer, "w", compression) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
NAN = torch.full((3, 20), 0.5).index_fill(0, torch.tensor(1), torch.nan)

# What is in the file, and what the message says.
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "found an empty one"),
    "text": (lambda: b"epoch,loss\n1,2.30\n" * 9, "expected a safetensors file or a zip"),
    "short text": (lambda: b"no", "expected a safetensors file or a zip"),
    "zeros": (lambda: bytes(100), "not JSON"),
    "JSON": (lambda: b'{"conv.weight": [1, 2, 3]}', "expected a safetensors file or a zip"),
    "bare pickle": (lambda: pickle.dumps({"a": 1}), "expected a safetensors file or a zip"),
    "truncated zip": (lambda: zipped(state())[:-100], "damaged or truncated torch file"),
    "half a zip": (lambda: zipped(state())[:999], "damaged or truncated torch file"),
    "start of a zip": (lambda: zipped(state())[:4], "damaged or truncated torch file"),
    "another zip": (lambda: rezipped(EMPTY_ZIP, zipfile.ZIP_STORED), "expected a safetensors file"),
    "deflated": (
        lambda: rezipped(zipped(state()), zipfile.ZIP_DEFLATED),
        "compressed entries, which torch.save never writes",
    ),
    "truncated safetensors": (lambda: safetensors.torch.save(state())[:-1], "damaged header"),
    "whole model": (lambda: zipped(network()), "holds more than tensors .* model.state_dict"),
    "a tensor": (lambda: zipped(torch.ones(3)), "expected a state dict, found Tensor"),
    "a list": (lambda: zipped([torch.ones(3)]), "expected a state dict, found list"),
    "numbers": (lambda: zipped({"a": 1, "b": 2}), "state dict of tensors.* found 'a': int"),
    "keys that are numbers": (lambda: zipped({1: torch.ones(2)}), "found 1: Tensor"),
    "no tensors": (lambda: zipped({}), "expected but missing: conv.weight, .* and 6 more"),
    "another prefix": (
        lambda: zipped({f"trunk.{n}": t for n, t in state().items()}),
        "missing: conv.weight, .* not expected: trunk.conv.weight, .* and 7 more",
    ),
    "one key more": (lambda: zipped(state(extra=torch.ones(1))), "missing: none; .*: extra"),
    "one key less": (
        lambda: zipped({n: t for n, t in state().items() if n != "head.bias"}),
        "expected but missing: head.bias; found but not expected: none",
    ),
    "another shape": (
        lambda: zipped(state(head__weight=torch.ones(10, 20))),
        r"head\.weight expected torch.float32 \(3, 20\), found torch.float32 \(10, 20\)",
    ),
    "integers for floats": (
        lambda: zipped(state(head__weight=torch.ones(3, 20, dtype=torch.int64))),
        r"convert the weights first: head\.weight expected torch.float32 .*, found torch.int64",
    ),
    "integers in safetensors": (
        lambda: safetensors.torch.save(state(head__weight=torch.ones(3, 20, dtype=torch.int32))),
        r"head\.weight expected torch.float32 \(3, 20\), found torch.int32",
    ),
    "doubles": (lambda: zipped(state(head__bias=torch.ones(3).double())), "found torch.float64"),
    "complex": (
        lambda: zipped(state(head__bias=torch.ones(3, dtype=torch.complex64))),
        "head.bias: expected a plain dense tensor .* found torch.complex64",
    ),
    "sparse": (
        lambda: zipped(state(head__weight=torch.eye(3, 20).to_sparse())),
        "head.weight: expected a plain dense tensor .* found torch.sparse_coo",
    ),
    "NaN": (lambda: zipped(state(head__weight=NAN)), "head.weight: .* found 20 of 60 NaN"),
    "infinity in safetensors": (
        lambda: safetensors.torch.save(state(head__bias=torch.tensor([0, torch.inf, 0]))),
        "head.bias: .* found 1 of 3 NaN or infinite",
    ),
    "stride-0 bomb": (
        lambda: zipped(state(head__weight=stride_0((10**6, 10**6)))),
        r"head\.weight expected torch.float32 \(3, 20\), found torch.float32 \(1000000, 1000000\)",
    ),
    "stride-0 bomb among the keys": (
        lambda: zipped(state(bomb=stride_0((10**12,)))),
        "not expected: bomb",
    ),
}


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants", "ignore:Sparse invariant")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_fault_is_named(tmp_path: Path, kind: str) -> None:
    make, match = REFUSED[kind]
    path = tmp_path / "baseline.pt"
    path.write_bytes(make())
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path, Small)
    assert str(path) in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt: expected a model file, .*No such file"):
        load_checkpoint(tmp_path / "gone.pt", Small)
    with pytest.raises(CheckpointError, match=r"expected a model file, .*Is a directory"):
        load_checkpoint(tmp_path, Small)
    with pytest.raises(CheckpointError, match=r"expected a model file, .*null byte"):
        load_checkpoint("a\0b", Small)


@pytest.mark.parametrize("wrap", [zipped, pickle.dumps])
def test_code_is_not_run(tmp_path: Path, wrap: Callable[[object], bytes]) -> None:
    mark, path = tmp_path / "mark", tmp_path / "baseline.pt"
    path.write_bytes(wrap({"conv.weight": Opened(mark)}))
    with pytest.raises(CheckpointError):
        load_checkpoint(path, Small)
    assert not mark.exists()


def test_stride_0_of_the_right_shape_gets_memory_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "baseline.pt"
    path.write_bytes(zipped(state(head__weight=stride_0((3, 20)))))
    weight = load_checkpoint(path, Small).get_parameter("head.weight")
    with torch.no_grad():
        weight[0, 0] = 5
    assert weight.sum() == 64


def tiny() -> nn.Module:
    torch.manual_seed(2)
    return nn.Linear(2, 2)


def test_bit_flips_in_a_torch_file_never_load_as_other_weights(tmp_path: Path) -> None:
    """torch.load itself returns other weights for two flips of three."""
    data, expected = zipped(tiny().state_dict()), digest(tiny())
    path = tmp_path / "baseline.pt"
    flips = random.Random(0).sample(range(8 * len(data)), 600)
    refused = 0
    for flip in flips:
        damaged = bytearray(data)
        damaged[flip // 8] ^= 1 << flip % 8
        path.write_bytes(damaged)
        try:
            loaded = load_checkpoint(path, tiny)
        except CheckpointError:
            refused += 1
            continue
        assert digest(loaded) == expected, flip
    assert refused > 200  # the rest lies in the zip's padding and time stamps


def test_truncation_of_a_torch_file(tmp_path: Path) -> None:
    data, path = zipped(tiny().state_dict()), tmp_path / "baseline.pt"
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(path, tiny)


@pytest.mark.parametrize("left_out", [None, "encoder.weight", "decoder.weight"])
@pytest.mark.parametrize("write", [zipped, safetensors.torch.save])
def test_tied_weights_may_stand_once(
    tmp_path: Path, left_out: str | None, write: Callable[[State], bytes]
) -> None:
    model = tied()
    kept = OrderedDict((n, t.clone()) for n, t in model.state_dict().items() if n != left_out)
    (tmp_path / "model").write_bytes(write(kept))
    loaded = load_checkpoint(tmp_path / "model", tied)
    assert loaded.get_parameter("encoder.weight") is loaded.get_parameter("decoder.weight")
    assert digest(loaded) == digest(model)


def test_two_weights_for_one_tied_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(zipped(untied().state_dict()))
    with pytest.raises(CheckpointError, match=r"decoder\.weight and encoder\.weight are tied"):
        load_checkpoint(tmp_path / "model", tied)
    assert isinstance(load_checkpoint(tmp_path / "model", untied), Pair)
