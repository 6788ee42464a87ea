"""Kernels for other CPUs than this one's best: each that can run here gives the reference's bits."""

import importlib
import platform
import re
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.integer import deploy, lacking
from compression.integer.native import NativeModel, library
from compression.integer.native.instructions import CHOICE, INSTRUCTIONS, features, instructions
from compression.quantization import quantize_static
from tests.support import sanitized
from tests.support.compared import assert_equal
from tests.support.nets import images, residual
from tests.support.places import ROOT
from tests.support.shaped_nets import NETS, made

chosen = importlib.import_module("compression.integer.native.instructions")
RUNNABLE = [row.name for row in INSTRUCTIONS if row.features <= features()]
DRAWN = 12
FEATURES = {row.name: row.features for row in INSTRUCTIONS}
MACHINES = {row.name: row.machine for row in INSTRUCTIONS}
needs_native = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))


@pytest.fixture(params=RUNNABLE)
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Compile for one row of INSTRUCTIONS, and for the best one again afterwards."""
    threads = torch.get_num_threads()
    monkeypatch.setenv(CHOICE, request.param)
    library.cache_clear()
    yield request.param
    torch.set_num_threads(threads)
    monkeypatch.undo()
    library.cache_clear()


def refusal(network: nn.Module, x: Tensor) -> str:
    """Check a network, or return why it has no kernels."""
    try:
        sanitized.check(network, x, 1)
    except CompressionError as error:
        return str(error)
    return ""


@needs_native
def test_networks_and_layers_give_the_references_bits(compiled: str) -> None:
    assert instructions().name == compiled
    sanitized.check_named(threads=2)
    refused = [text for case in islice(sanitized.drawn_cases(), DRAWN) if (text := refusal(*case))]
    assert len(refused) < DRAWN / 2, refused


@needs_native
@pytest.mark.parametrize("name", NETS)
def test_other_shapes_give_the_references_bits(compiled: str, name: str) -> None:
    network, x = made(name)
    reference = quantize_static(network, x)
    deployed = deploy(reference, x, executor="native")
    assert_equal(deployed(x), reference(x), f"{name} on {compiled}")


@needs_native
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_layers_on_codes_are_computed(compiled: str) -> None:
    sanitized.check_linear()
    sanitized.check_embedding()
    sanitized.check_recurrent()


@needs_native
def test_deploy_takes_them_unasked(compiled: str) -> None:
    reference = quantize_static(residual(), images())
    deployed = deploy(reference, images())
    assert isinstance(deployed, NativeModel)
    assert torch.equal(deployed(images()), reference(images()))


@pytest.mark.parametrize("name", FEATURES)
def test_the_fastest_that_a_cpu_has_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: MACHINES[name])
    monkeypatch.setattr(chosen, "features", lambda: FEATURES[name])
    assert instructions().name == name


def test_a_choice_is_taken_and_a_wrong_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "arm64")  # macOS calls it so
    monkeypatch.setattr(chosen, "features", lambda: FEATURES["i8mm"])
    monkeypatch.setenv(CHOICE, "dotprod")
    assert instructions().name == "dotprod"
    monkeypatch.setenv(CHOICE, "avx2")
    with pytest.raises(
        CompressionError, match=r"COMPRESSION_ISA=avx2.* found arm64 with asimddp, i8mm"
    ):
        instructions()
    monkeypatch.setenv(CHOICE, "sse9")
    with pytest.raises(CompressionError, match=r"expected one of avx512_vnni, .*, found 'sse9'"):
        instructions()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_a_cpu_that_has_none_is_told(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOICE, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(chosen, "features", frozenset)
    with pytest.raises(
        CompressionError, match=f"AVX2 and FMA, or an ARM one .* found {machine} with none"
    ):
        instructions()


def test_what_this_machine_has_is_read() -> None:
    if platform.machine() in ("x86_64", "AMD64"):
        assert {"sse2", "fpu"} <= features()  # each x86-64 CPU has them
    else:
        assert features() <= frozenset().union(*FEATURES.values())


def test_the_readmes_table_names_all() -> None:
    readme = (ROOT / "compression" / "integer" / "README.md").read_text()
    section = readme.partition("\n## The instructions\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| \w", section, re.MULTILINE)[1:] == list(FEATURES)
