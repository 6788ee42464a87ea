"""The summary for CI: what became worse first, at most 30 lines, nothing that Markdown reads."""

from pathlib import Path

import pytest

from benchmarks.gate.changes import Changes
from benchmarks.report.page.runs import Run, read_runs
from benchmarks.report.summary import MOST_LINES, summary
from tests.support.made_up import default_run
from tests.support.saved import save


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    return read_runs([save(tmp_path / "run.json", default_run(), commit="abcdef0123")])


def test_without_a_file_to_compare_with_it_is_the_front(runs: list[Run]) -> None:
    lines = summary(runs, None).splitlines()
    assert lines[:3] == [
        "# Compression: 2026-01-02, commit abcdef0",
        "",
        "## cifar10, cpu: the smallest files of each accuracy",
    ]
    assert "| `int4-weights` | 6.05 | 93.50 (93.00–93.97) | 0.71 (0.70-0.73) |" in lines
    assert lines[-1].startswith("| `float16` | 21.4 |"), "as accurate as the baseline, and smaller"


def test_what_became_worse_stands_first(runs: list[Run]) -> None:
    found = Changes(["slow: x"], ["gone: y"], ["small: z"], ["busy"], compared=70)
    lines = summary(runs, found, "digits.json").splitlines()
    assert lines[2] == (
        "Against `digits.json`: 70 benchmarks compared: 1 worse, 1 better, 1 not usable."
    )
    headings = [line for line in lines if line.startswith("## ")]
    assert headings[:4] == ["## Worse", "## Not usable", "## Better", "## Advice"]
    assert lines.index("- `slow: x`") < lines.index("- `gone: y`") < lines.index("- `small: z`")


@pytest.mark.parametrize(
    "counts", [(0, 0, 0, 0), (3, 0, 200, 1), (200, 200, 200, 200), (26, 1, 1, 1)]
)
def test_it_has_at_most_30_lines_and_counts_what_it_leaves_out(
    runs: list[Run], counts: tuple[int, ...]
) -> None:
    parts = [[f"{kind} {i}" for i in range(n)] for kind, n in zip("wuba", counts, strict=True)]
    text = summary(runs, Changes(*parts), "x.json")
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES
    assert f"{counts[0]} worse, {counts[2]} better" in lines[2]
    for kind, sentences in zip("wuba", parts, strict=True):
        shown = sum(line.startswith(f"- `{kind} ") for line in lines)
        left = len(sentences) - shown
        assert left == 0 or shown == 0 or f"- and {left} more, in report.html" in lines


def test_a_hostile_sentence_is_one_line_of_code(runs: list[Run]) -> None:
    text = summary(runs, Changes(["a`b`\n<img src=x>\n| # c"], compared=1), "`x`\n# y")
    assert "- `a'b' <img src=x> / # c`" in text.splitlines()
    assert "Against `'x' # y`: 1" in text
