"""Every kind of model comes back bit for bit, here and in another process."""

import json
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from compression.storage import contents, load, load_checkpoint, save
from compression.storage.container import read
from tests.support.runs import printed_by
from tests.support.storage_faults import small_descriptions
from tests.support.storage_nets import IMAGES, KINDS, digest, make

CODED = {"raw": False, "coded": True}
SMALL = {"": nullcontext, "small": small_descriptions}
made = cache(make)


@pytest.mark.parametrize("small", SMALL)
@pytest.mark.parametrize("coded", CODED)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str, coded: str, small: str, tmp_path: Path) -> None:
    model, path = made(kind), tmp_path / "model"
    before = digest(model)
    described: AbstractContextManager[None] = SMALL[small]()
    with described:  # the networks are small: more of their tensors then have other encodings
        stored_bytes = save(model, path, entropy_coded=CODED[coded])
        first = path.read_bytes()
        assert save(model, path, entropy_coded=CODED[coded]) == stored_bytes
    assert path.read_bytes() == first
    assert digest(model) == before
    assert stored_bytes == path.stat().st_size == sum(contents(path).values())
    loaded = load(path, KINDS[kind][0])
    assert digest(loaded) == before
    check_interface(kind, loaded, model)


def check_interface(kind: str, loaded: nn.Module, model: nn.Module) -> None:
    """Assert what a user sees of a model besides its bits."""
    assert not loaded.training
    trainable = [(n, p.requires_grad) for n, p in model.named_parameters()]
    assert [(n, p.requires_grad) for n, p in loaded.named_parameters()] == trainable
    assert [n for n, _ in loaded.named_buffers()] == [n for n, _ in model.named_buffers()]
    if kind not in ("tied", "untied", "odd-bits"):
        images = torch.randn(IMAGES)
        assert torch.equal(loaded(images), model(images))


@pytest.mark.parametrize("kind", KINDS)
def test_a_coded_file_is_no_larger(kind: str, tmp_path: Path) -> None:
    sizes = [save(made(kind), tmp_path / "model", entropy_coded=c) for c in (False, True)]
    assert sizes[1] <= sizes[0]


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_what_is_tied_in_a_coded_file_is_tied_again(kind: str, tmp_path: Path) -> None:
    save(made(kind), tmp_path / "model", entropy_coded=True)
    other = {"tied": "untied", "untied": "tied"}[kind]
    loaded = load(tmp_path / "model", KINDS[other][0])
    weights = [loaded.get_parameter(f"{layer}.weight") for layer in ("encoder", "decoder")]
    assert (weights[0] is weights[1]) == (kind == "tied")
    assert digest(loaded) == digest(made(kind))


@pytest.mark.parametrize(("kind", "stream"), [("shared", "indices"), ("static-wide", "codes")])
def test_the_wide_kinds_are_coded(kind: str, stream: str, tmp_path: Path) -> None:
    """Else the cases above would show nothing of a coder."""
    save(made(kind), tmp_path / "model", entropy_coded=True)
    about = read(tmp_path / "model").about
    assert about is not None
    coded = [d.get("coded") for d in about["tensors"].values() if isinstance(d, dict)]
    assert [stream] in coded


def test_load_checkpoint_reads_a_coded_file(tmp_path: Path) -> None:
    save(made("shared"), tmp_path / "model", entropy_coded=True)
    assert digest(load_checkpoint(tmp_path / "model", KINDS["shared"][0])) == digest(made("shared"))


def test_a_fresh_process_loads_the_same_bits(tmp_path: Path) -> None:
    for kind in KINDS:
        for coded in CODED:
            save(made(kind), tmp_path / f"{kind} {coded}", entropy_coded=CODED[coded])
    program = """import sys
from tests.support.storage_nets import print_digests
print_digests(sys.argv[1])"""
    printed = printed_by(program, tmp_path)
    expected = {f"{kind} {coded}": digest(made(kind)) for kind in KINDS for coded in CODED}
    assert json.loads(printed) == expected
