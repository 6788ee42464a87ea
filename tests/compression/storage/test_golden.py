"""Files of version 1, as they were once written, load for ever; no test writes them."""

from typing import Any

import pytest
import torch

from compression.attention import Attention
from compression.quantization.modules import REAL, QuantizedRest
from compression.storage import contents, load, load_checkpoint
from compression.storage.container import read
from tests.support.places import GOLDEN as FOLDER
from tests.support.storage_faults import FILES
from tests.support.storage_nets import (
    KINDS,
    Factory,
    Scores,
    Stream,
    Tokens,
    digest,
    golden_network,
)

# storage-version-1 has the descriptions of the first writer: no CRC-32, a dense tensor described.
# The others were written once, by these lines with `name` each of the keys:
#
#     files = {"raw": raw_bytes, "coded": coded_bytes}  # of tests/support/storage_faults.py
#     files["static"] = lambda: saved(make("static"), entropy_coded=True)
#     files["weights-4-bit-groups"] = lambda: saved(make("weights-4-bit-groups"))
#     files["channels"] = lambda: saved(make("channels"))
#     files["attention"] = lambda: saved(make("attention"))
#     files["weights-attention"] = lambda: saved(make("weights-attention"))
#     files["dynamic-attention"] = lambda: saved(make("dynamic-attention"))
#     files["dynamic-recurrent"] = lambda: saved(make("dynamic-recurrent"))
#     files["static-stream"] = lambda: saved(make("static-stream"), entropy_coded=True)
#     files["static-tail"] = lambda: saved(make("static-tail"), entropy_coded=True)
#     files["static-channels"] = lambda: saved(make("static-channels"), entropy_coded=True)
#     (FOLDER / f"storage-{name}.safetensors").write_bytes(files[name]())
#
# Two are of writers that left the input projections of attention in float, whose keys make no more:
#
#     files["old-weights-attention"] = lambda: saved(make("weights-attention"))
#     files["old-dynamic-attention"] = lambda: saved(make("dynamic-attention"))
#
# One is of a writer that rounded the sums of a residual stream, and kept nothing of what that left:
#
#     files["old-static-stream"] = lambda: saved(make("static-stream"), entropy_coded=True)
#
# One is of a writer that rounded the sums and interpolations before the outputs:
#
#     files["old-static-tail"] = lambda: saved(make("static-tail"), entropy_coded=True)
#
# A new format gets a new file; where one of these no longer loads, the reader is wrong.
GOLDEN: dict[str, tuple[Factory, str]] = {
    "storage-version-1.safetensors": (
        golden_network,
        "b648b979fc9d8eb761fe5e72b35d9a40edf49dbed5e8f60369cac940f1f9f210",
    ),
    "storage-raw.safetensors": (
        FILES["raw"][1],
        "ef95e836bc377cc9e6f7e040e378fb6d5578fac330acca5df16b2891f4b87366",
    ),
    "storage-coded.safetensors": (
        FILES["coded"][1],
        "118f473db73c445d862a92d0b60a8290875de1a4a93da5677f94c5d968639cc7",
    ),
    "storage-static.safetensors": (
        KINDS["static"][0],
        "d8ab59b5d60f6dad78e856156ef9f6a1696870726bbcf8ed80d2e062d2aa5e98",
    ),
    "storage-weights-4-bit-groups.safetensors": (
        KINDS["weights-4-bit-groups"][0],
        "0182c8dfdf1321bd0bbc65f01c6dcc86ab99e0c0caab34d96ac03bed588062c0",
    ),
    "storage-channels.safetensors": (
        KINDS["channels"][0],
        "a8323b58fd9fd3aea4d49c24c9dc9929f15e6631dfaa110ea81d811016661dbb",
    ),
    "storage-attention.safetensors": (
        KINDS["attention"][0],
        "fb78a60b39d1052d132c8cb97ca012f2a693037c9945f6f7c27b46829f86ea20",
    ),
    "storage-old-weights-attention.safetensors": (
        KINDS["weights-attention"][0],
        "1fe64aaa99eda8204111b8638829a03cde0dd075ed705aba20e1840ba1fe5154",
    ),
    "storage-old-dynamic-attention.safetensors": (
        KINDS["dynamic-attention"][0],
        "71d82d9dc6ff847fb6ab1f7ac397cceca048e5c6fea7196c3469da2fca08a348",
    ),
    "storage-weights-attention.safetensors": (
        KINDS["weights-attention"][0],
        "0501620b4d9dadbc7a1265cdf104ecc6be0d3a90847e917063f7487316ee4728",
    ),
    "storage-dynamic-attention.safetensors": (
        KINDS["dynamic-attention"][0],
        "3fb93d98ad603a09634d8ec6b263547a425b1fe1fb292b0460efa0010b86851b",
    ),
    "storage-dynamic-recurrent.safetensors": (
        KINDS["dynamic-recurrent"][0],
        "d67f2e74e5cf21e1ee32ebc141b4038a2832fde347c572e42694db3efd231ed9",
    ),
    "storage-static-channels.safetensors": (
        KINDS["static-channels"][0],
        "6d99418e5a6888a0f66ed2d4dcaf15f2ff34ef8639c7a565ee4cebd3d33c5d14",
    ),
    "storage-static-stream.safetensors": (
        KINDS["static-stream"][0],
        "b3f5b139fd02efd87fac964bf76870527c946b300f9efe9b8a8954351404c8fd",
    ),
    "storage-old-static-stream.safetensors": (
        KINDS["static-stream"][0],
        "eea2468633ce861c7fcf0ccb9c72daba73f7055e36605dd2e23e747a7b8dd34d",
    ),
    "storage-static-tail.safetensors": (
        KINDS["static-tail"][0],
        "f2526d8b0f0b9fc565d9c65b4ef82778c84a4dfeea04390656d229561026bbab",
    ),
    "storage-old-static-tail.safetensors": (
        KINDS["static-tail"][0],
        "3083f6857b1058807d437faa0b2d41831cc4dd8fc89e3f57fa5917a890feebe2",
    ),
}


def test_the_folder_holds_these_files_and_no_other() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_loads(name: str) -> None:
    factory, expected = GOLDEN[name]
    for reader in (load, load_checkpoint):
        assert digest(reader(FOLDER / name, factory)) == expected
    assert sum(contents(FOLDER / name).values()) == (FOLDER / name).stat().st_size < 8000


def encodings(name: str) -> set[tuple[Any, ...]]:
    """Return what the descriptions of a file have: encoding, index, values, coded streams."""
    about = read(FOLDER / name).about
    assert about is not None
    return {
        (d["encoding"], d.get("index"), d.get("values"), *d.get("coded", ()))
        if isinstance(d, dict)
        else ("plain",)
        for d in about["tensors"].values()
    }


def test_the_golden_files_have_every_encoding() -> None:
    assert encodings("storage-version-1.safetensors") == {
        ("dense", None, None),
        ("sparse", None, None),
        ("packed", None, None),
        ("alias", None, None),
    }
    sparse = {
        ("sparse", index, values)
        for index in ("mask", "gaps")
        for values in ("dense", "packed", "clustered")
    }
    assert encodings("storage-raw.safetensors") == sparse | {
        ("plain",),
        ("packed", None, None),
        ("clustered", None, None),
        ("alias", None, None),
    }
    assert encodings("storage-coded.safetensors") == {
        ("dense", None, None, "values"),
        ("sparse", "mask", "dense", "mask"),
        ("packed", None, None, "codes"),
        ("clustered", None, None, "indices"),
    }


def test_the_golden_files_have_widths() -> None:
    found = {}
    for name in ("channels", "static-channels"):
        about = read(FOLDER / f"storage-{name}.safetensors").about
        assert about is not None
        found[name] = about["structure"]
    widths = {"kind": "channels", "num_bits": {}, "widths": found["channels"]["widths"]}
    assert found == {
        "channels": widths,
        "static-channels": {"kind": "static", "num_bits": {}, "of": widths},
    }
    assert widths["widths"]["hidden"]["out_features"] < 20


def test_the_golden_files_have_heads() -> None:
    about = read(FOLDER / "storage-attention.safetensors").about
    assert about is not None
    widths = about["structure"]["widths"]
    assert widths["mix"].keys() == {"bias_k", "bias_v"}
    assert widths["mix.out_proj"]["in_features"] == widths["mix.q_proj"]["out_features"] < 8


def test_the_golden_files_have_attention_that_is_whole_and_that_is_written_out() -> None:
    for kind in ("weights", "dynamic"):
        found = [
            load(FOLDER / f"storage-{age}{kind}-attention.safetensors", Tokens)
            for age in ("old-", "")
        ]
        assert [isinstance(m.get_submodule("mix"), Attention) for m in found] == [False, True]
        assert all(m(torch.ones(2, 2, 8, 8)).isfinite().all() for m in found)


def test_the_golden_files_have_streams_whose_rest_is_kept_and_is_not() -> None:
    for age, kept in (("", True), ("old-", False)):
        found = load(FOLDER / f"storage-{age}static-stream.safetensors", Stream)
        assert found.shown.streams is kept
        assert any(isinstance(m, QuantizedRest) for m in found.modules()) is kept
        assert found(torch.ones(2, 2, 8, 8)).isfinite().all()


def test_the_golden_files_have_tails_that_are_real_and_of_codes() -> None:
    for age, real in (("", True), ("old-", False)):
        found = load(FOLDER / f"storage-{age}static-tail.safetensors", Scores)
        assert found.shown.tail is real
        assert sum(isinstance(m, REAL) for m in found.modules()) == 3 * real
        assert found(torch.ones(2, 2, 8, 8)).isfinite().all()


def test_the_golden_files_have_joined_tensors_and_contexts() -> None:
    content = read(FOLDER / "storage-coded.safetensors")
    assert content.about is not None
    joined = {dtype: group["coded"] for dtype, group in content.about["joined"].items()}
    assert joined == {"float32": ["values"], "float16": [], "int64": [], "bool": ["values"]}
    kinds = {n: int(content.entries[n][0]) for n in ("grid#codes", "taps#indices", "mask#mask")}
    # The kind of a block is its first byte: 1 has contexts.
    assert kinds == {"grid#codes": 1, "taps#indices": 1, "mask#mask": 0}
