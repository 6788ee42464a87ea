"""Small tensors coded as one: they come back, and a group that lies is refused."""

import json
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from compression.storage import contents, load, save
from compression.storage.encoding import DTYPES, same_bits
from compression.storage.joined import is_small, join, joined_kinds, split
from tests.support.golden_tensors import numbers
from tests.support.storage_faults import (
    FILES,
    About,
    Change,
    Entries,
    coded_bytes,
    forge,
    pack,
    refuses,
)
from tests.support.storage_nets import Bag, digest, empty

HUGE = 10**15  # elements that no machine has the memory for


@st.composite
def small_tensors(draw: st.DrawFn) -> dict[str, Tensor]:
    names = draw(st.lists(st.text(min_size=1, max_size=4), unique=True, min_size=1, max_size=5))
    tensors = {}
    for name in names:
        dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
        shape = draw(st.sampled_from([(), (0,), (1,), (7,), (300,)]))
        count = torch.Size(shape).numel()
        filled = torch.full((count,), draw(st.integers(0, 1))) + torch.arange(count) % 2
        tensors[name] = filled.to(dtype).view(shape)
    return tensors


@given(small_tensors())
def test_any_small_tensors_come_back(tensors: dict[str, Tensor]) -> None:
    about, entries = join(tensors)
    about = json.loads(json.dumps(about))
    assert joined_kinds(about) == {n: f"{t.dtype} {tuple(t.shape)}" for n, t in tensors.items()}
    again = split(about, entries)
    assert not entries
    assert again.keys() == tensors.keys()
    assert all(same_bits(again[n], t) for n, t in tensors.items())


def test_what_is_small() -> None:
    assert is_small(torch.tensor(1))
    assert is_small(torch.zeros(4095))
    assert not is_small(torch.zeros(4096))
    assert not is_small(torch.zeros(2, 2))
    assert not is_small(torch.zeros(9, dtype=torch.int8))  # codes have a coder of their own


def test_norms_take_less_together(tmp_path: Path) -> None:
    """Rounded to bfloat16 they have two bytes of zeros and exponents that are all alike."""
    bag = {f"norm{i}": (numbers(64) / 8 + 1).bfloat16().float() for i in range(16)}
    sizes = [save(Bag(bag), tmp_path / "model", entropy_coded=coded) for coded in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    assert contents(tmp_path / "model")["values"] < 0.5 * 16 * 64 * 4


def groups(**changes: Any) -> Change:
    """Return a change of the group of float32: bias of 60 elements, and scale of one."""
    return lambda _, about: about["joined"]["float32"].update(changes)


def shapes(**changes: Any) -> Change:
    return lambda _, about: about["joined"]["float32"]["shapes"].update(changes)


def also_a_tensor(shape: list[int]) -> Change:
    """Claim the joined bias among the tensors too, of one symbol so many times."""

    def claim(entries: Entries, about: About) -> None:
        about["tensors"]["bias"] = {
            "encoding": "clustered", "dtype": "float32", "shape": shape, "coded": ["indices"],
        }  # fmt: skip
        entries["bias#codebook"] = torch.zeros(1)
        entries["bias#indices"] = torch.zeros(4, dtype=torch.uint8)

    return claim


def twice(shape: list[int]) -> Change:
    """Claim the count in the group of float32 too, before its own group."""
    return shapes(count=shape)


KINDS = "bias expected torch.float32 .60,., found "
FORGERIES: dict[str, tuple[Change, str]] = {
    "a size below zero": (shapes(bias=[-60]), "sizes are whole numbers from 0, found .-60"),
    "a huge size": (shapes(bias=[10**12]), KINDS + r"torch.float32 \(1000000000000,\)"),
    "an overflowing size": (shapes(bias=[10**30]), "sizes are whole numbers"),
    "an overflowing empty size": (shapes(bias=[10**30, 0]), "sizes are whole numbers"),
    "a size of a fraction": (shapes(bias=[60.0]), r"sizes are whole numbers from 0, found \[60\.0"),
    "a size of text": (shapes(bias=["60"]), "sizes are whole numbers"),
    "a size of null": (shapes(bias=[None]), "sizes are whole numbers"),
    "a size of true": (shapes(scale=[True]), "sizes are whole numbers"),
    "a size of a list": (shapes(bias=[[60]]), "sizes are whole numbers"),
    "a shape of null": (shapes(bias=None), "small tensors|sizes"),
    # Both have no sizes, as a number has none.
    "a shape of text": (shapes(scale=""), "small tensors|sizes"),
    "a shape of an object": (shapes(scale={}), "small tensors|sizes"),
    "a tensor more": (shapes(more=[1]), "not expected: more"),
    "a tensor less": (
        lambda _, a: a["joined"]["float32"]["shapes"].pop("bias"),
        "expected but missing: bias",
    ),
    "elements moved": (shapes(bias=[59], scale=[2]), KINDS),
    "an unknown dtype": (
        lambda _, a: a["joined"].update(float128=a["joined"].pop("float32")),
        "small tensors|float128",
    ),
    "another dtype": (
        lambda _, a: a["joined"].update(int32=a["joined"].pop("float32")),
        KINDS + "torch.int32",
    ),
    "another CRC-32": (groups(crc32=1), r"small tensors of float32 \(bias, scale.*CRC-32"),
    "a CRC-32 of null": (groups(crc32=None), "small tensors of float32 .*CRC-32"),
    "no CRC-32": (lambda _, a: a["joined"]["float32"].pop("crc32"), "float32: damaged description"),
    "no word of a coder": (
        lambda _, a: a["joined"]["float32"].pop("coded"),
        "small tensors of float32 .*expected 61 values",
    ),
    "not coded": (groups(coded=[]), "small tensors of float32 .*expected 61 values"),
    "coded null": (groups(coded=None), "small tensors of float32 .*None cannot be coded"),
    "an unknown stream coded": (groups(coded=["values", "tables"]), "float32.*tables"),
    "no shapes": (lambda _, a: a["joined"]["float32"].pop("shapes"), "small tensors: damaged"),
    "shapes of a list": (groups(shapes=["bias", "scale"]), "small tensors: damaged"),
    "a group of a list": (lambda _, a: a["joined"].update(float32=[1]), "small tensors: damaged"),
    "a group of null": (lambda _, a: a["joined"].update(float32=None), "small tensors: damaged"),
    "joined of a list": (lambda _, a: a.update(joined=[1]), "small tensors: damaged"),
    "joined of null": (lambda _, a: a.update(joined=None), "small tensors: damaged"),
    "nothing joined": (lambda _, a: a.pop("joined"), "expected but missing: bias, count"),
    "no entry": (lambda e, _: e.pop("float32#values"), "small tensors of float32 .*damaged"),
    "an entry cut": (
        lambda e, _: e.update({"float32#values": e["float32#values"][:-1].clone()}),
        "small tensors of float32 .*coded numbers of .* end before",
    ),
    "an entry of another dtype": (
        lambda e, _: e.update({"float32#values": torch.zeros(61)}),
        "small tensors of float32 .*coded stream of bytes, found torch.float32",
    ),
    # A name told twice: one claim is compared with the network, and another decoded.
    "a tensor too": (also_a_tensor([60]), "bias"),
    "a tensor of another shape too": (also_a_tensor([61]), "bias"),
    "a tensor beyond memory too": (also_a_tensor([HUGE]), "bias"),
    "in two groups": (twice([]), "count|small tensors"),
    "in two groups, of another shape": (twice([3]), "count|small tensors"),
    "in two groups, beyond memory": (twice([HUGE]), "count|small tensors"),
    "an alias too": (
        lambda _, a: a["tensors"].update(bias={"encoding": "alias", "of": "scale"}),
        "bias",
    ),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_of_small_tensors(tmp_path: Path, kind: str) -> None:
    change, match = FORGERIES[kind]
    data = forge(change, coded_bytes())
    refuses(tmp_path / "model", data, match=match, factory=FILES["coded"][1])


def test_an_alias_of_a_joined_tensor_is_tied(tmp_path: Path) -> None:
    bias = nn.Parameter(numbers(60))
    save(Bag({"bias": bias, "again": bias}), tmp_path / "model", entropy_coded=True)
    loaded = load(tmp_path / "model", lambda: empty({"bias": bias, "again": bias}))
    assert loaded.get_parameter("bias") is loaded.get_parameter("again")
    assert digest(loaded) == digest(Bag({"bias": bias, "again": bias}))


def test_a_group_of_no_tensors_is_a_group(tmp_path: Path) -> None:
    """Whoever writes it: nothing is decoded, and nothing is left."""
    about = {"float32": {"shapes": {}, "crc32": 0, "coded": []}}
    data = pack(
        {"float32#values": torch.zeros(0)}, {"structure": None, "tensors": {}, "joined": about}
    )
    (tmp_path / "model").write_bytes(data)
    assert not load(tmp_path / "model", nn.Module).state_dict()
