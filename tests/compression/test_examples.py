"""The examples in docstrings run and print what they say; every name of the face has one."""

import doctest
import importlib
import io
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import compression
from tests.support.places import ROOT

WITHOUT = {"CompressionError"}
"""Names of the face that nobody calls."""
NEEDS = {"compression.integer.onnx.export": "onnx"}
"""Packages that an example needs beside the project's own."""
KNOWN = {"torch": torch, "nn": nn}
"""What an example may use without an import."""


def modules_with_examples() -> list[str]:
    paths = sorted((ROOT / "compression").rglob("*.py"))
    return [module_of(path) for path in paths if ">>> " in path.read_text()]


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_print_what_they_say(name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="the extra dev installs it")
    module: ModuleType = importlib.import_module(name)
    printed = io.StringIO()
    with torch.random.fork_rng(devices=[]), redirect_stdout(printed):
        torch.manual_seed(0)
        found = doctest.testmod(module, extraglobs=KNOWN)
    assert found.attempted > 0
    assert found.failed == 0, printed.getvalue()


@pytest.mark.parametrize("name", sorted(set(compression.__all__) - WITHOUT))
def test_every_name_of_the_face_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(compression, name).__doc__ or "")
