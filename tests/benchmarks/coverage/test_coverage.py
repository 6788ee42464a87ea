"""The table of networks and functions: right, refused and wrong results are told apart."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.coverage import (
    COLUMNS,
    Case,
    Cell,
    cell_of,
    columns,
    markdown,
    quantized,
    removed,
    sparse,
)
from benchmarks.coverage.__main__ import main
from compression.errors import CompressionError
from compression.removal import remove_channels
from compression.storage import load

CHECKS = dict(COLUMNS)
REMOVAL = "remove_channels, % of MACs, parameters"
SMALL = ("squeezenet1_1", "shufflenet_v2_x0_5")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("squeezenet1_1")


@pytest.fixture(scope="module")
def normed() -> Case:
    return Case("shufflenet_v2_x0_5")


def test_the_command_writes_a_row_for_each_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "coverage.md"
    status = main(["-o", str(page), *SMALL])
    said, text = capsys.readouterr(), page.read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| network", "| ---", *(f"| {name}" for name in SMALL)]
    assert {len(row) for row in rows} == {1 + len(COLUMNS)}
    assert re.fullmatch(rf"2 networks, {2 * len(COLUMNS)} cells: .*, 0 WRONG\.\n", said.out), (
        said.err
    )
    assert said.out in text
    assert status == 0
    assert f"`python -m benchmarks.coverage {' '.join(SMALL)}`" in text
    assert "\n1. " in text, "a sentence for each refusal"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet19"], "unknown architecture 'resnet19': choose "),
        (["-o", "/no/folder/page.md"], "/no/folder/page.md: the folder /no/folder does not exist"),
    ],
)
def test_what_cannot_be_made_is_refused_first(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def unchanged(model: nn.Module, *_: object, **__: object) -> nn.Module:
    return copy.deepcopy(model)


def clamped(model: nn.Module, *_: object, **__: object) -> nn.Module:
    class Clamped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = model(x)
            return found.clamp(max=float(found.mean()))

    return Clamped()


def dropped(model: nn.Module, *_: object, **__: object) -> nn.Module:
    pruned = copy.deepcopy(model)
    for weight in pruned.parameters():
        if weight.ndim > 1:
            weight.view(-1)[: round(sparse.AMOUNT * weight.numel())] = 0
    return pruned


def swapped(*args: Any, **options: Any) -> nn.Module:
    """Remove channels, and exchange those of the first layer that are left."""
    smaller = remove_channels(*args, **options)
    weight = smaller.get_parameter("features.0.weight")
    weight.copy_(weight.flip(0).clone())
    return smaller


def moved(*args: Any, **options: Any) -> nn.Module:
    smaller = remove_channels(*args, **options)
    smaller.get_parameter("features.0.weight")[1, 1, 1, 1] += 1
    return smaller


def redrawn(*args: Any, **options: Any) -> nn.Module:
    smaller = remove_channels(*args, **options)
    nn.init.normal_(smaller.get_parameter("features.0.weight"))
    return smaller


def reloaded(*args: Any) -> nn.Module:
    loaded = load(*args)
    loaded.get_parameter("features.0.weight")[0] += 1
    return loaded


@pytest.mark.parametrize(
    ("heading", "room", "name", "fault", "message"),
    [
        ("fold_batch_norm", quantized, "fold_batch_norm", clamped, "dB, expected at least"),
        ("deploy", quantized, "deploy", clamped, "dB, expected at least"),
        ("quantize_weights 8 bits, dB", quantized, "quantize_weights", unchanged, "dB, expected"),
        ("cast float16, dB", quantized, "cast", unchanged, "weight is torch.float32"),
        ("prune_l1_unstructured", sparse, "prune_l1_unstructured", unchanged, "0 of 1728 are zero"),
        ("prune_l1_unstructured", sparse, "prune_l1_unstructured", dropped, "a larger weight went"),
        ("prune_ln_structured", sparse, "prune_ln_structured", unchanged, "0 filters are zero"),
        ("prune_n_of_m", sparse, "prune_n_of_m", unchanged, "is not 2:4"),
        ("share_weights", sparse, "share_weights", unchanged, "takes 1728 values"),
        (
            "count_macs, millions",
            columns,
            "count_macs",
            lambda *_: 1,
            "1 multiply-accumulates, exp",
        ),
        ("save, load, MiB", columns, "load", lambda _: nn.Linear(2, 2), "weight differs"),
        (REMOVAL, removed, "remove_channels", unchanged, "1.0000 of the multiply-accumulates stay"),
        (REMOVAL, removed, "remove_channels", swapped, "dB, expected at least 200"),
        (REMOVAL, removed, "remove_channels", moved, "0.weight is no part of what it was"),
        (REMOVAL, removed, "remove_channels", redrawn, "0.weight holds a number that was not"),
        (REMOVAL, removed, "count_macs", lambda *_: 1, "1 multiply-accumulates, expected"),
        (REMOVAL, removed, "load", reloaded, "features.0.weight differs once loaded"),
    ],
)
@torch.no_grad()
def test_a_result_that_is_wrong_is_told(
    case: Case, monkeypatch: pytest.MonkeyPatch, heading: str, room: Any, name: str,
    fault: Callable[..., Any], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(room, name, fault)
    found = cell_of(CHECKS[heading], case)
    assert found.outcome == "WRONG"
    assert message in found.about


@pytest.mark.parametrize(
    ("heading", "room", "name", "message"),
    [
        ("quantize_dynamic, dB", quantized, "quantize_dynamic", "fc is neither INT8 nor listed"),
        ("recalibrate_batch_norm", columns, "recalibrate_batch_norm", "dB, expected at least 200"),
    ],
)
def test_a_technique_that_does_nothing_is_told(
    normed: Case, monkeypatch: pytest.MonkeyPatch, heading: str, room: Any, name: str, message: str
) -> None:
    monkeypatch.setattr(room, name, unchanged)
    found = cell_of(CHECKS[heading], normed)
    assert found.outcome == "WRONG"
    assert message in found.about


def test_what_is_left_of_removed_channels_is_said(case: Case) -> None:
    found = cell_of(CHECKS[REMOVAL], case)
    assert found.outcome == "ok", found.about
    macs, parameters = map(int, found.about.split(", "))
    assert 25 < macs <= 50
    assert 25 < parameters < 75


def test_an_error_of_ours_is_a_refusal_and_another_is_wrong(case: Case) -> None:
    def refuses(_: Case) -> str:
        raise CompressionError("pass another")

    def breaks(_: Case) -> str:
        raise KeyError("place")

    assert cell_of(refuses, case) == Cell("refused", "pass another")
    broken = cell_of(breaks, case)
    assert broken.outcome == "WRONG"
    assert re.fullmatch(r"KeyError at test_coverage\.py:\d+: 'place'", broken.about)


def test_sentences_stand_once_below_the_table() -> None:
    cells = [Cell("ok", "3"), Cell("refused", "a\n b"), Cell("refused", "a b"), Cell("WRONG", "c")]
    page = markdown({"net": cells}, ["v", "x", "y", "z"], "command").splitlines()
    assert "| net | ok 3 | refused [1] | refused [1] | WRONG [2] |" in page
    assert page[-2:] == ["1. a b", "2. WRONG: c"]
