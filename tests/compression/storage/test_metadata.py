"""Any JSON at any place of the metadata: CheckpointError, or the very model; never anything else."""

import copy
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.support.storage_faults import (
    FILES,
    About,
    Net,
    intact_bytes,
    loaded,
    pack,
    refuses,
    refuses_or_equals,
    saved,
    unpack,
)
from tests.support.storage_nets import KINDS, Factory, digest, make
from tests.support.strategies import examples

QUANTIZED = ("weights-4-bit-groups", "static", "float16", "dynamic")
SOURCES: dict[str, tuple[Callable[[], bytes], Factory]] = {
    **FILES,
    **{k: (cache(lambda k=k: saved(make(k), entropy_coded=True)), KINDS[k][0]) for k in QUANTIZED},
}
# Sizes of 10**15 have no memory on any machine; those between would take this one's.
NUMBERS = st.integers(-300, 300) | st.sampled_from([2**31, 10**15, 2**63, 10**30, -(2**63)])
STREAMS = ["", "gaps", "mask", "values", "codes", "indices", "codebook", "bias"]
ENCODINGS = ["dense", "sparse", "packed", "clustered", "alias", "weights", "static", "cast"]
WORDS = st.sampled_from([*STREAMS, *ENCODINGS, "float32", "int8", "bool", "float128"])
SCALARS = st.none() | st.booleans() | NUMBERS | st.floats() | WORDS | st.text(max_size=5)
KEYS = WORDS | st.sampled_from(
    ["kind", "bits", "group_size", "dtype", "shape", "encoding", "coded"]
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
# 2**31 weights in a group would be padded to as many: gigabytes, where nothing bounds them.
GROUP_SIZES = st.none() | st.integers(-2, 50) | st.sampled_from([10**15, 2**63, 10**30])


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container of a tree with each of its keys."""
    for key in (
        tree if isinstance(tree, dict) else range(len(tree) if isinstance(tree, list) else 0)
    ):
        yield tree, key
        yield from places(tree[key])


def change(draw: st.DrawFn, about: About) -> None:
    """Replace, add or take away at one place of the tree."""
    found = list(places(about))
    tree, key = found[draw(st.integers(0, len(found) - 1))]
    match draw(st.sampled_from(["replace", "replace", "replace", "add", "delete"])):
        case "delete":
            del tree[key]
        case "add" if isinstance(tree, dict):
            tree[draw(KEYS)] = draw(JSON)
        case _:
            tree[key] = draw(GROUP_SIZES if key == "group_size" else JSON)


@settings(max_examples=examples(8))
@given(st.sampled_from(sorted(SOURCES)), st.integers(1, 2), st.data())
def test_any_json_at_any_place(
    tmp_path_factory: pytest.TempPathFactory, source: str, changes: int, data: st.DataObject
) -> None:
    build, factory = SOURCES[source]
    entries, about, *_ = unpack(build())
    assert about is not None
    del about["version"], about["sha256"]
    about = copy.deepcopy(about)
    for _ in range(changes):
        if about:
            change(data.draw, about)
    path = tmp_path_factory.getbasetemp() / "metadata"
    refuses_or_equals(path, pack(entries, about), factory, expected_of(source))


@cache
def expected_of(source: str) -> str:
    build, factory = SOURCES[source]
    return digest(loaded(build(), factory))


def everywhere(value: Any) -> Iterator[About]:
    """Yield the metadata of the file of net() with a value at each place in turn."""
    _, about, *_ = unpack(intact_bytes())
    assert about is not None
    del about["version"], about["sha256"]
    for i in range(len(list(places(about)))):
        changed = copy.deepcopy(about)
        tree, key = list(places(changed))[i]
        tree[key] = value
        yield changed


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**63, 10**30, 0.5, float("inf"), float("nan")),
    *("", "x", "dense", [], [[]], [0], [-1], [10**30], ["x"], {}, {"x": 1}, {"encoding": "alias"}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_each_value_at_each_place(tmp_path: Path, value: Any) -> None:
    entries = unpack(intact_bytes()).entries
    for about in everywhere(value):
        refuses_or_equals(tmp_path / "model", pack(entries, about), Net, expected_of("net"))


@pytest.mark.parametrize("key", ["structure", "joined", "architecture", "tensors"])
def test_what_is_nested_deep(tmp_path: Path, key: str) -> None:
    """As deep as json just reads it; what a message then shows of it is nested as deep."""
    for depth in (10, *range(850, 1000)):
        data = nested(key, depth)
        refuses(tmp_path / "model", data, factory=None if key == "architecture" else Net)


def nested(key: str, depth: int) -> bytes:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * limit)  # for the writer alone
    try:
        return pack({}, {"tensors": {}, key: {"kind": value}})
    finally:
        sys.setrecursionlimit(limit)
