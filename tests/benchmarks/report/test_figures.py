"""All facts give all figures, byte for byte; a figure without its facts says what it needs."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.figures import write_figures
from compression.errors import CompressionError
from tests.support.made_up import (
    channels_sweep,
    default_run,
    distillation_sweep,
    pruning_sweep,
    size_sweep,
)

NAMES = (
    *("figure2-pruning", "figure6-distillation", "pareto-size-accuracy", "size-curve"),
    "macs-accuracy",
)


def everything() -> list[dict[str, Any]]:
    sweeps = (pruning_sweep, distillation_sweep, size_sweep, channels_sweep)
    return [*default_run(), *(fact for sweep in sweeps for fact in sweep())]


@pytest.fixture(scope="module")
def all_figures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[str]]:
    """Return the files of all facts, and what is missing."""
    return write_figures(everything(), tmp_path_factory.mktemp("figures"))


def test_all_facts_give_all_figures_as_svg_and_png(
    all_figures: tuple[list[Path], list[str]],
) -> None:
    written, missing = all_figures
    assert missing == []
    assert [p.name for p in written] == [f"{n}.{e}" for n in NAMES for e in ("svg", "png")]
    for path in written:
        start = path.read_bytes()[:8]
        assert start.startswith(b"<?xml" if path.suffix == ".svg" else b"\x89PNG")


def test_the_same_facts_give_the_same_bytes(
    all_figures: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    again, _ = write_figures(everything(), tmp_path)
    for a, b in zip(all_figures[0], again, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (default_run(), ["figure2", "figure6", "size", "macs"]),
        (pruning_sweep(), ["figure6", "pareto", "size", "macs"]),
        (distillation_sweep(), ["figure2", "pareto", "size", "macs"]),
        (size_sweep(), ["figure2", "figure6", "pareto", "macs"]),
        (channels_sweep(), ["figure2", "figure6", "pareto", "size", "macs"]),
        ([*default_run(), *channels_sweep()], ["figure2", "figure6", "size"]),
        ([], ["figure2", "figure6", "pareto", "size", "macs"]),
    ],
    ids=["default", "pruning", "distillation", "sizes", "channels", "removal", "nothing"],
)
def test_a_figure_that_lacks_its_points_says_what_it_needs(
    tmp_path: Path, facts: list[dict[str, object]], missing: list[str]
) -> None:
    written, reasons = write_figures(facts, tmp_path)
    assert [r.partition("-")[0] for r in reasons] == missing
    assert all("needs" in r for r in reasons)
    assert len(written) == 2 * (len(NAMES) - len(missing))


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "figures").write_text("")
    with pytest.raises(CompressionError, match=r"--figures .*: a file is in the folder's place"):
        write_figures(default_run(), tmp_path / "figures")


def test_two_devices_have_a_set_of_figures_each(
    all_figures: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    cuda = [
        f | {"accuracy": f["accuracy"] / 2} if "accuracy" in f else f for f in default_run("cuda")
    ]
    written, missing = write_figures([*everything(), *cuda], tmp_path / "both")
    names = [*(f"{n}-cpu" for n in NAMES), "pareto-size-accuracy-cuda"]
    assert [p.name for p in written] == [f"{n}.{e}" for n in names for e in ("svg", "png")]
    assert [r.split()[0] for r in missing] == [
        "figure2-pruning-cuda",
        "figure6-distillation-cuda",
        "size-curve-cuda",
        "macs-accuracy-cuda",
    ]
    for mixed, single in zip(written[: 2 * len(NAMES)], all_figures[0], strict=True):
        assert mixed.read_bytes() == single.read_bytes(), "the other device changes nothing"
