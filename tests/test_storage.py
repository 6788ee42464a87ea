import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.baseline import weights_fingerprint
from benchmarks.networks import resnet18_10
from compression.errors import CheckpointError, CompressionError
from compression.pruning import prune_l1_unstructured
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.storage import contents, load, load_checkpoint, save
from compression.storage.container import pack
from compression.storage.encoding import decode, encode
from tests.nets import images, mlp, residual
from tests.strategies import tensors

ROOT = Path(__file__).resolve().parents[1]
KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense": lambda m: m,
    "sparse": lambda m: prune_l1_unstructured(m, amount=0.6),
    "static": lambda m: quantize_static(m, images()),
    "dynamic": quantize_dynamic,
    "3 bits": lambda m: quantize_weights(m, num_bits=3, group_size=7),
    "8 bits": lambda m: quantize_weights(m, num_bits=8),
    "float16": lambda m: cast(m, torch.float16),
    "bfloat16": lambda m: cast(m, torch.bfloat16),
}


def same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [t.contiguous().view(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(*flat)


def round_trip(tensor: Tensor, num_bits: int | None = None) -> Tensor:
    about, entries = encode("t", tensor, num_bits=num_bits)
    about = json.loads(json.dumps(about))
    return decode("t", about, entries)


@given(tensors(), st.floats(0, 1))
def test_a_tensor_survives_bit_for_bit(x: Tensor, kept: float) -> None:
    sparse = torch.where(
        torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < kept, x, 0.0
    )
    for tensor in (x, sparse, -sparse, sparse.half(), sparse.bfloat16(), sparse != 0):
        assert same_bits(round_trip(tensor), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(-0.0),
        torch.empty(0, 3),
        torch.tensor([float("nan"), float("inf"), -0.0]),
        torch.zeros(100).index_fill(0, torch.tensor([3]), -0.0),
        torch.ones(1).expand(50, 20),
        torch.arange(1000.0)[10:20],
        torch.arange(12.0).view(3, 4).t(),
        torch.arange(5),
        torch.tensor([True, False]),
    ],
    ids=["-0", "empty", "nan", "sparse -0", "expanded", "sliced", "transposed", "int64", "bool"],
)
def test_odd_tensors_survive_and_are_stored_packed(tensor: Tensor) -> None:
    assert same_bits(round_trip(tensor), tensor)
    _, entries = encode("t", tensor, num_bits=None)
    stored = sum(t.untyped_storage().nbytes() for t in entries.values())
    assert stored <= tensor.numel() * tensor.element_size() + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_survives_bit_for_bit_and_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", KINDS[kind](residual()).eval()
    stored = save(model, path)
    assert stored == path.stat().st_size == sum(contents(path).values())
    again = load(path, lambda: residual(seed=5))
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(same_bits(t, again.state_dict()[n]) for n, t in model.state_dict().items())
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))
    first = path.read_bytes()
    save(model, path)
    assert path.read_bytes() == first


def test_a_fresh_process_reads_what_this_one_wrote(tmp_path: Path) -> None:
    wanted = {}
    for kind, compress in KINDS.items():
        model = compress(residual())
        save(model, tmp_path / f"{kind}.safetensors")
        wanted[kind] = weights_fingerprint(model)
    code = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from benchmarks.baseline import weights_fingerprint
from compression.storage import load
from tests.nets import residual
files = sorted(Path({str(tmp_path)!r}).glob("*.safetensors"))
print(json.dumps({{f.stem: weights_fingerprint(load(f, lambda: residual(9))) for f in files}}))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == wanted


def test_a_60_percent_file_is_at_most_44_percent(tmp_path: Path) -> None:
    model = resnet18_10()
    whole = save(model, tmp_path / "whole")
    pruned = save(prune_l1_unstructured(model, amount=0.6), tmp_path / "pruned")
    assert pruned <= 0.44 * whole
    assert contents(tmp_path / "pruned")["index"] >= 11_000_000 / 8


def test_codes_take_their_bits(tmp_path: Path) -> None:
    sizes = []
    for bits in (2, 4, 8):
        save(quantize_weights(mlp(), num_bits=bits), tmp_path / "model")
        sizes.append(contents(tmp_path / "model")["values"])
    assert sizes[2] - sizes[1] == pytest.approx((192 * 16 + 16 * 4) / 2, abs=64)
    assert sizes[1] - sizes[0] >= (192 * 16 + 16 * 4) / 4 - 8  # 2-bit codes may go sparse


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 50))
    model[2].weight = model[0].weight
    return model


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    model = tied()
    assert save(model, tmp_path / "model") < 4 * 2 * 50 * 50
    again = load(tmp_path / "model", tied)
    assert again.get_parameter("0.weight") is again.get_parameter("2.weight")
    assert torch.equal(again.get_parameter("0.weight"), model.get_parameter("0.weight"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("storage") / "model"
    save(prune_l1_unstructured(mlp(), amount=0.6), path)
    return path.read_bytes()


def refused(path: Path, damaged: bytes) -> None:
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=str(path)):
        load(path, mlp)


def test_every_class_of_truncation_is_found(data: bytes, tmp_path: Path) -> None:
    header = 8 + int.from_bytes(data[:8], "little")
    for length in (
        0,
        1,
        7,
        8,
        9,
        100,
        header - 1,
        header,
        header + 1,
        len(data) // 2,
        len(data) - 1,
    ):
        refused(tmp_path / "model", data[:length])
    refused(tmp_path / "model", data + b"\0")


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_every_flipped_bit_is_found(tmp_path_factory, data: bytes, where: float, bit: int) -> None:
    damaged = bytearray(data)
    damaged[int(where * len(data))] ^= 1 << bit
    refused(tmp_path_factory.getbasetemp() / "flipped", bytes(damaged))


HEADERS = {
    "a gigabyte": (10**9).to_bytes(8, "little") + b"{}",
    "overflowing": b"\xff" * 8 + b"{}",
    "text": b"just some text, and not a model at all",
    "a list": (2).to_bytes(8, "little") + b"[]",
    "nested": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "twins": (17).to_bytes(8, "little") + b'{"a": 1, "a": 2} ',
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94.",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_hostile_header_is_refused(kind: str, tmp_path: Path) -> None:
    refused(tmp_path / "model", HEADERS[kind])


CLAIMS = {
    "encoding": {"encoding": "zip", "dtype": "float32", "shape": [3]},
    "dtype": {"encoding": "dense", "dtype": "object", "shape": [3]},
    "shape": {"encoding": "dense", "dtype": "float32", "shape": [4]},
    "negative": {"encoding": "dense", "dtype": "float32", "shape": [-3]},
    "a bomb": {"encoding": "packed", "dtype": "int8", "shape": [10**12], "bits": 2},
    "bits": {"encoding": "packed", "dtype": "int8", "shape": [3], "bits": 99},
    "mask": {"encoding": "sparse", "dtype": "float32", "shape": [3]},
    "alias": {"encoding": "alias", "of": "nothing"},
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_claim_that_the_entries_do_not_bear_is_refused(kind: str, tmp_path: Path) -> None:
    entries = {"t": torch.ones(3), "t#codes": torch.zeros(1, dtype=torch.uint8)}
    (tmp_path / "model").write_bytes(
        pack(entries, {"structure": None, "tensors": {"t": CLAIMS[kind]}})
    )
    with pytest.raises(CompressionError, match="t"):
        load(tmp_path / "model", mlp)


def test_a_newer_version_another_architecture_and_a_path_as_name(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(pack({}, {"version": 2, "structure": None, "tensors": {}}))
    with pytest.raises(CheckpointError, match="version 2"):
        load(path, mlp)
    save(mlp(), path)
    with pytest.raises(CheckpointError, match="another architecture; expected but missing: bn1"):
        load(path, residual)
    about, entries = encode("../x", torch.ones(3), num_bits=None)
    path.write_bytes(pack(entries, {"structure": None, "tensors": {"../x": about}}))
    with pytest.raises(CheckpointError, match=r"not expected: \.\./x"):
        load(path, mlp)
    assert not (tmp_path.parent / "x").exists()


def test_a_model_with_nan_is_not_saved(tmp_path: Path) -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("1.bias")[0] = float("nan")
    with pytest.raises(CompressionError, match=r"1\.bias"):
        save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("THE CODE RAN",))


def checkpoint(kind: str, path: Path) -> None:
    state = mlp().state_dict()
    match kind:
        case "folder":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("epoch 1: 90%")
        case "truncated":
            torch.save(state, path)
            path.write_bytes(path.read_bytes()[:-100])
        case "code":
            torch.save({"1.weight": Code()}, path)
        case "whole model":
            torch.save(mlp(), path)
        case "keys":
            torch.save({f"module.{name}": t for name, t in state.items()}, path)
        case "shapes":
            torch.save({**state, "1.bias": torch.zeros(17)}, path)
        case "integers":
            torch.save({**state, "1.bias": torch.zeros(16, dtype=torch.int64)}, path)
        case "nan":
            torch.save({**state, "1.bias": torch.full((16,), float("nan"))}, path)
        case "stride 0":
            torch.save({**state, "1.weight": torch.zeros(1).expand(10**9)}, path)


CHECKPOINTS = {
    "missing": "No such file",
    "folder": "directory",
    "empty": "empty one",
    "text": "expected a safetensors file",
    "truncated": "damaged or truncated",
    "code": "more than tensors",
    "whole model": "more than tensors",
    "keys": "missing: 1.bias, .* not expected: module",
    "shapes": r"1\.bias expected .*\(16,\), found .*\(17,\)",
    "integers": r"1\.bias expected torch\.float32 .* found torch\.int64",
    "nan": r"1\.bias: .* 16 of 16",
    "stride 0": r"1\.weight expected",
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_that_is_none_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint(kind, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=CHECKPOINTS[kind]) as error:
        load_checkpoint(tmp_path / "model.pt", mlp)
    assert "model.pt" in str(error.value)
    assert "THE CODE RAN" not in capsys.readouterr().out


def test_checkpoints_of_every_usual_form_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, path = mlp(), tmp_path / "model"
    for write in (
        lambda: torch.save(model.state_dict(), path),
        lambda: torch.save({"state_dict": model.state_dict(), "epoch": 3}, path),
        lambda: save_file(model.state_dict(), path),
        lambda: save(model, path),
    ):
        write()
        assert weights_fingerprint(load_checkpoint(path, lambda: mlp(7))) == weights_fingerprint(
            model
        )
    save_file(model.state_dict(), path)
    with pytest.raises(CheckpointError, match="use load_checkpoint"):
        load(path, mlp)


def test_a_flipped_bit_in_a_torch_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(mlp().state_dict(), path)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    start = data.index(mlp().state_dict()["1.weight"].numpy().tobytes())
    for position in range(start, start + 4000, 397):
        damaged = bytearray(data)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        assert hashlib.sha256(damaged).hexdigest() != digest
        with pytest.raises(CheckpointError, match="CRC"):
            load_checkpoint(path, mlp)
