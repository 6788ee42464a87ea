from pathlib import Path

import pytest

from benchmarks.harness.figures import write_figures
from compression.errors import CompressionError
from tests.made_up import default_run, distillation_sweep, pruning_sweep, size_sweep

NAMES = ("figure2-pruning", "figure6-distillation", "pareto-size-accuracy", "size-curve")


def everything() -> list[dict[str, object]]:
    return [*default_run(), *pruning_sweep(), *distillation_sweep(), *size_sweep()]


def test_all_facts_give_all_figures_as_svg_and_png(tmp_path: Path) -> None:
    written, missing = write_figures(everything(), tmp_path)
    assert missing == []
    assert [p.name for p in written] == [f"{n}.{e}" for n in NAMES for e in ("svg", "png")]
    for path in written:
        start = path.read_bytes()[:8]
        assert start.startswith(b"<?xml" if path.suffix == ".svg" else b"\x89PNG")


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_figures(everything(), tmp_path / name)[0] for name in "ab")
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes(), a.name


@pytest.mark.parametrize(
    ("facts", "missing"),
    [
        (default_run(), ["figure2", "figure6", "size"]),
        (pruning_sweep(), ["figure6", "pareto", "size"]),
        (distillation_sweep(), ["figure2", "pareto", "size"]),
        (size_sweep(), ["figure2", "figure6", "pareto"]),
        ([], ["figure2", "figure6", "pareto", "size"]),
    ],
    ids=["default", "pruning", "distillation", "sizes", "nothing"],
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
