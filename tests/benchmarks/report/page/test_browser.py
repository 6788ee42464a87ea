"""The page in a browser: hover, keys, sort, filter, budget, small screens, print, no script."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.budget import choose, parse_budget
from benchmarks.report.page.page import page
from benchmarks.report.page.runs import read_runs
from tests.support.browser import chromium, opened
from tests.support.made_up import default_run, pruning_sweep
from tests.support.saved import save

WIDE = {"viewport": {"width": 1600, "height": 1000}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    facts = [*default_run(), *default_run("cuda"), *pruning_sweep()]
    path = save(folder / "run.json", facts)
    (folder / "report.html").write_text(page(read_runs([path])))
    return folder / "report.html"


@pytest.fixture
def shown(browser: Any, report: Path) -> Iterator[Any]:
    with opened(browser, report, **WIDE) as found:
        yield found


def column(page: Any, number: int, *, only: str = "") -> list[str]:
    """Return the texts of a column of the first table, of the lines that are shown."""
    cells = page.locator(f"#s0 .front-table tbody tr:visible{only} > :nth-child({number})")
    return [text.strip() for text in cells.all_inner_texts()]


def told(page: Any, text: str) -> None:
    """Wait until the tip says it: a browser passes a pointer's moves on once per frame."""
    page.locator("#tip", has_text=text).wait_for(state="visible")


def point_of(page: Any, technique: str) -> Any:
    """Return the point of a technique in the first plot."""
    name = page.locator("th").get_by_text(technique, exact=True)
    row = page.locator("#s0 .front-table tbody tr", has=name)
    return page.locator(f"#s0 .plot .pt[data-row='{row.get_attribute('data-row')}']").first


def test_a_point_under_the_pointer_tells_its_numbers(shown: Any) -> None:
    point = point_of(shown, "int4-weights")
    point.locator("path").last.hover(force=True)
    tip = shown.locator("#tip")
    tip.wait_for(state="visible")
    said = tip.inner_text()
    assert said.startswith("int4-weights")
    assert "file, MiB: 6.05" in said
    assert "accuracy, % (95%): 93.50 (" in said
    lit = shown.locator("#s0 tr.on th").all_inner_texts()
    assert lit == ["int4-weights"]
    assert shown.locator("#s0 .pt.on").count() == 1 + 2  # file size, and one speed-up per batch
    shown.mouse.move(5, 5)
    tip.wait_for(state="hidden")


def test_arrow_keys_go_from_point_to_point(shown: Any) -> None:
    plot = shown.locator("#s0 .plot").first
    plot.focus()
    seen = []
    for _ in range(3):
        shown.keyboard.press("ArrowRight")
        seen.append(shown.locator("#tip b").inner_text())
    assert len(set(seen)) == 3
    assert set(seen[:2]) <= {"student", "distilled", "distilled-paper-t0.01"}  # the smallest files
    shown.keyboard.press("Escape")
    shown.locator("#tip").wait_for(state="hidden")


def test_a_head_sorts_its_column_up_and_down(shown: Any) -> None:
    before = column(shown, 1)
    head = shown.locator("#s0 .front-table thead button", has_text="file, MiB")
    head.click()
    sizes = [float(text) for text in column(shown, 3)]
    assert sizes == sorted(sizes)
    head.press("Enter")
    assert [float(text) for text in column(shown, 3)] == sorted(sizes, reverse=True)
    assert shown.locator("#s0 th[aria-sort]").get_attribute("aria-sort") == "descending"
    shown.locator("#s0 .front-table thead button", has_text="speed-up (95%)").first.click()
    assert column(shown, 8)[-2:] == ["–", "–"], "what has no latency is last"
    assert sorted(column(shown, 1)) == sorted(before)


def test_kinds_and_a_word_leave_out_lines_and_points(shown: Any) -> None:
    rows = len(column(shown, 1))
    shown.get_by_label("pruning").first.uncheck()
    names = column(shown, 1)
    assert 0 < len(names) < rows
    assert not [name for name in names if name.startswith(("l1", "random", "ln"))]
    point_of(shown, "l1-global-60").wait_for(state="hidden")
    point_of(shown, "int4-weights").wait_for(state="visible")
    shown.locator("#s0 [type=search]").fill("INT8")
    assert column(shown, 1) == ["channels-50-int8", "dynamic-int8", "static-int8"]
    shown.locator("#s0 [type=search]").fill("")
    shown.get_by_label("pruning").first.check()
    assert len(column(shown, 1)) == rows


def test_a_budget_greys_out_what_does_not_fit_and_names_the_best(shown: Any) -> None:
    shown.locator("#s0 [data-limit=MiB]").fill("11")
    shown.locator("#s0 [data-limit=points]").fill("1")
    said = shown.locator("#s0 .fits")
    assert column(shown, 1, only=":not(.out)") == [
        "channels-50-int8",
        "static-int8",
        "int4-weights",
    ]
    best, runner_up, _ = choose(default_run(), parse_budget("file=11MiB drop=1pt")).fitting
    assert said.inner_text() == f"3 of 19 fit; best: {best.name}; runner-up: {runner_up.name}."
    assert "out" in (point_of(shown, "student").get_attribute("class") or "")
    shown.locator("#s0 [data-limit=ms]").fill("20")
    assert column(shown, 1, only=":not(.out)") == ["channels-50-int8"], "simulated has no time"
    shown.locator("#s0 [data-limit=ms]").fill("0.001")
    assert said.inner_text() == "Nothing fits."
    for limit in ("MiB", "ms", "points"):
        shown.locator(f"#s0 [data-limit={limit}]").fill("")
    assert said.inner_text() == ""
    assert column(shown, 1, only=".out") == []


def test_a_way_of_timing_is_chosen_for_plot_table_and_budget(shown: Any) -> None:
    shown.locator("nav a", has_text="cuda").click()
    shown.locator("#s1").wait_for(state="visible")
    shown.locator("#s0").wait_for(state="hidden")
    figures = shown.locator("#s1 .plots figure:visible")
    assert figures.count() == 2
    shown.locator("#s1 select.timed").select_option(label="batch 1024, graph")
    assert figures.last.get_attribute("data-timed") == "graph-1024"
    heads = shown.locator("#s1 .front-table thead th:visible").all_inner_texts()
    assert [head for head in heads if "ms" in head] == ["batch 1024, graph, ms"]


@pytest.mark.parametrize("width", [360, 400, 1000, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_screen_is_too_narrow(browser: Any, report: Path, width: int, scheme: str) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    with opened(browser, report, **options) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#s0 .plot").first.bounding_box()["width"] > min(width, 500) * 0.75
        names = page.locator("#s0 .front-table tbody th").first.bounding_box()
        assert names["height"] < 80, "a name is broken into letters"
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert contrast(ink, paper) > 7


def contrast(one: str, other: str) -> float:
    """Return WCAG's contrast ratio of two colours, 'rgb(1, 2, 3)'."""

    def luminance(colour: str) -> float:
        parts = [int(p) / 255 for p in colour.strip("rgb()").split(",")]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_without_a_script_every_table_and_drawing_is_there(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False, **WIDE) as page:
        assert page.locator("article:visible").count() == 2
        assert page.locator("#s0 .plot:visible").count() == 2
        assert page.locator("#s0 .front-table tbody tr:visible").count() == 19
        assert page.locator("input:visible").count() == 0, "a box that does nothing"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("history")
    larger = [
        f | {"stored_bytes": f["stored_bytes"] + 9} if f["metric"] == "size" else f
        for f in default_run()
    ]
    sides = [default_run()] * 3 + [larger] * 2
    paths = [
        save(folder / f"{day}.json", facts, day=day, commit=f"{day}abcdefgh")
        for day, facts in enumerate(sides)
    ]
    (folder / "report.html").write_text(page(read_runs(paths)))
    return folder / "report.html"


def test_a_line_of_the_history_tells_its_runs_and_grows(browser: Any, history: Path) -> None:
    with opened(browser, history, **WIDE) as page:
        line = page.locator(".spark").first
        line.scroll_into_view_if_needed()
        box = line.bounding_box()
        tip = page.locator("#tip")
        page.mouse.move(box["x"] + 2, box["y"] + 5)
        told(page, "0abcdef")
        assert tip.inner_text() == "baseline: file, MiB\n2026-01-01 0abcdef: 42.720"
        page.mouse.move(box["x"] + box["width"] * 3 / 4, box["y"] + 5)
        told(page, "3abcdef")
        assert "2026-01-04 3abcdef" in tip.inner_text()
        line.focus()
        page.keyboard.press("ArrowLeft")
        assert "2026-01-03 2abcdef" in tip.inner_text()
        page.keyboard.press("Enter")
        large = page.locator("dialog .spark")
        assert large.bounding_box()["width"] > 900
        page.keyboard.press("ArrowLeft")
        assert "2026-01-04 3abcdef" in tip.inner_text()
        tip.wait_for(state="visible")
        page.keyboard.press("Escape")
        assert page.locator("dialog").count() == 0
        tip.wait_for(state="hidden")
        assert line.locator(".worse").count() == 1


def test_printed_is_every_setting_and_no_box(browser: Any, report: Path) -> None:
    with opened(browser, report, **WIDE) as page:
        page.emulate_media(media="print")
        assert page.locator("article:visible").count() == 2
        assert page.locator("input:visible, nav:visible").count() == 0
        assert len(page.pdf()) > 10_000


def test_printed_on_a4_nothing_is_cut_off(browser: Any, history: Path) -> None:
    with opened(browser, history, viewport={"width": 794, "height": 1100}) as page:
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") <= 794
