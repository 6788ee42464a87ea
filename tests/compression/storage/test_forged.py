"""Files whose hash is right and whose content is not, or not for this network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError
from compression.quantization import quantize_weights
from compression.storage import container, load, save
from tests.support.storage_faults import About, Change, Entries, forge, pack, refuses


def tensors(**changes: Any) -> Change:
    """Return a change of the description of `sparse`."""
    return lambda _, about: about["tensors"]["sparse"].update(changes)


def codes_called_floats(entries: Entries, about: About) -> None:
    del entries["sparse#mask"], entries["sparse#values"]
    entries["sparse#codes"] = torch.zeros(10, dtype=torch.uint8)
    claim = {"encoding": "packed", "bits": 4, "shape": [20], "dtype": "float32"}
    about["tensors"]["sparse"] = claim


FORGERIES: dict[str, tuple[Change, str]] = {
    "negative shape": (tensors(shape=[-4, -5]), "sparse: .*sizes are whole numbers from 0"),
    "larger shape": (
        tensors(shape=[4, 7]),
        r"sparse expected torch.float32 \(20,\), found torch.float32 \(4, 7\)",
    ),
    "another shape": (
        tensors(shape=[4, 5]),
        r"sparse expected torch.float32 \(20,\), found .*\(4, 5\)",
    ),
    "bomb": (
        tensors(shape=[10**12]),
        r"sparse expected .*, found torch.float32 \(1000000000000,\)",
    ),
    "overflowing shape": (tensors(shape=[10**30]), "sparse: .*sizes are whole"),
    "overflowing empty shape": (tensors(shape=[10**30, 0]), "sparse: .*sizes are whole"),
    # int() would take each of these for a size, and infinity for none.
    "shape of a fraction": (tensors(shape=[20.5]), "sparse: "),
    "shape of digits": (tensors(shape=["20"]), "sparse: "),
    "shape of infinity": (tensors(shape=[float("inf")]), "sparse: "),
    "shape of null": (tensors(shape=[None]), "sparse: damaged description or entry"),
    "shape of text": (tensors(shape="many"), "sparse: damaged description or entry"),
    "no shape": (lambda _, a: a["tensors"]["sparse"].pop("shape"), "sparse: damaged description"),
    "unknown dtype": (tensors(dtype="float128"), "sparse: damaged description or entry"),
    "unhashable dtype": (tensors(dtype=[]), "sparse: damaged description or entry"),
    "another dtype": (tensors(dtype="int32"), "sparse expected .*, found torch.int32"),
    "unknown encoding": (tensors(encoding="zstd"), "sparse: unknown encoding 'zstd'"),
    "not so encoded": (tensors(encoding="dense"), "sparse: damaged description or entry"),
    "codes of 9 bits": (
        lambda e, a: (
            e.update({"sparse#codes": e.pop("sparse#mask")}),
            a["tensors"]["sparse"].update(encoding="packed", bits=9),
        ),
        "num_bits must lie in 2..8",
    ),
    "codes called floats": (
        codes_called_floats,
        r"sparse: expected torch.float32 \[20\], found torch.int8",
    ),
    "too many values": (
        lambda e, _: e.update({"sparse#values": torch.ones(2)}),
        r"sparse: expected 8 values .* found torch.float32 of shape \(2,\)",
    ),
    "0-dim values": (
        lambda e, _: e.update({"sparse#values": torch.tensor(1.0)}),
        "sparse: expected 8 values",
    ),
    "short mask": (
        lambda e, _: e.update({"sparse#mask": torch.zeros(2, dtype=torch.uint8)}),
        "sparse: .*expected 3 packed bytes",
    ),
    "bits behind the mask": (
        lambda e, _: e["sparse#mask"].__setitem__(2, 0x80),
        "sparse: .*expected zero bits after",
    ),
    "a float mask": (
        lambda e, _: e.update({"sparse#mask": torch.zeros(3)}),
        "sparse: .*expected 3 packed bytes, found torch.float32",
    ),
    "missing entry": (lambda e, _: e.pop("sparse#mask"), "sparse: damaged description or entry"),
    "entry of no tensor": (
        lambda e, _: e.update(spare=torch.zeros(1)),
        "entries that belong to no tensor: spare",
    ),
    "alias of nothing": (
        lambda _, a: a["tensors"]["linear.bias"].update(of="nowhere"),
        "aliases of tensors that are not there: linear.bias",
    ),
    "alias of itself": (
        lambda _, a: a["tensors"]["linear.bias"].update(of="linear.bias"),
        "aliases of tensors that are not there: linear.bias",
    ),
    "alias of a list": (
        lambda _, a: a["tensors"]["linear.bias"].update(of=["tied"]),
        "aliases of tensors that are not there: linear.bias",
    ),
    "alias of another shape": (
        lambda _, a: a["tensors"]["linear.bias"].update(of="sparse"),
        r"linear\.bias expected torch.float32 \(2,\), found torch.float32 \(20,\)",
    ),
    "tensor of a path": (
        lambda _, a: a["tensors"].update({"../x": {"encoding": "alias", "of": "sparse"}}),
        r"missing: none; found but not expected: \.\./x",
    ),
    "tensor left out": (
        lambda _, a: a["tensors"].pop("linear.bias"),
        "expected but missing: linear.bias",
    ),
    "description a number": (
        lambda _, a: a["tensors"].update(sparse=1),
        "sparse: damaged description",
    ),
    "description a text": (lambda _, a: a["tensors"].update(sparse="dense"), "sparse: damaged"),
    "tensors no object": (lambda _, a: a.update(tensors=[]), "damaged metadata"),
    "structure of a newer version": (
        lambda _, a: a.update(structure={"kind": "sparse-grid"}),
        "sparse-grid.* does not fit",
    ),
    "structure without its options": (
        lambda _, a: a.update(structure={"kind": "weights", "bits": 99, "group_size": None}),
        "does not fit the network .*bits",
    ),
    "structure no object": (lambda _, a: a.update(structure=[1]), "does not fit the network"),
    "structure a text": (lambda _, a: a.update(structure="abc"), "does not fit the network"),
    "structure of a huge group": (
        # No machine has so many bytes; a smaller number would be gigabytes of padding.
        lambda _, a: a.update(structure={"kind": "weights", "bits": 4, "group_size": 10**15}),
        "does not fit the network|of another architecture",
    ),
    "structure of another network": (
        lambda _, a: a.update(structure={"kind": "static"}),
        "does not fit the network",
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_with_its_hash(tmp_path: Path, kind: str) -> None:
    change, match = FORGERIES[kind]
    refuses(tmp_path / "model", forge(change), match=match)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


def test_a_newer_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(container, "VERSION", 2)
        newer = pack({}, {"tensors": {}})
    refuses(tmp_path / "model", newer, match="version 2 of the format, .* reads 1; update it")


def test_another_architecture_names_the_first_few(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save(nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)]), path)
    with pytest.raises(CheckpointError, match=r"missing: 3\.bias, 3\.weight; found .*: none"):
        load(path, lambda: nn.Sequential(*[nn.Linear(2, 2) for _ in range(4)]))
    kinds = (
        r"0\.weight expected torch.float32 \(2, 5\), found torch.float32 \(2, 2\); .* and 1 more"
    )
    with pytest.raises(CheckpointError, match=kinds):
        load(path, lambda: nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 2).half(), nn.Linear(5, 2)))


class Shared(nn.Module):
    """One layer under two names."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first if shared else nn.Linear(4, 4)


def test_a_layer_shared_by_the_factory_only_is_refused(tmp_path: Path) -> None:
    save(Shared(shared=False), tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"keeps other values .* first\.bias"):
        load(tmp_path / "model", lambda: Shared(shared=True))
    save(Shared(shared=True), tmp_path / "model")
    assert isinstance(load(tmp_path / "model", lambda: Shared(shared=True)), Shared)


def test_a_quantized_file_of_another_architecture(tmp_path: Path) -> None:
    save(quantize_weights(nn.Sequential(nn.Linear(4, 4))), tmp_path / "model")
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load(tmp_path / "model", lambda: nn.Sequential(nn.ReLU()))
