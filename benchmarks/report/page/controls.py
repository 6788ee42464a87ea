"""What chooses among techniques: kinds, a word, a budget. Nothing is shown without the script."""

from collections.abc import Iterable, Sequence

from benchmarks.report.page.chart import icon
from benchmarks.report.page.html import Markup, tag
from benchmarks.report.page.points import Point, Timed, judged_by, kind_name, timed_key, timed_name


def controls(points: Iterable[Point], timed: Sequence[Timed]) -> Markup:
    """Return the boxes of the kinds, which are the legend too, and of a budget."""
    points = list(points)
    lost = f" {judged_by(points).lost_unit} lost".replace("  ", " ")
    return tag("div", _kinds(points), _budget(timed, lost), class_="controls")


def _kinds(points: Iterable[Point]) -> Markup:
    """Return the kinds that there are, each with a box that shows or hides it."""
    found = sorted({point.kind for point in points})
    boxes = (
        tag(
            "label",
            tag("input", type="checkbox", checked=True, value=number, class_="needs-script"),
            icon(number),
            " ",
            kind_name(number),
        )
        for number in found
    )
    word = tag(
        "label",
        "Name contains ",
        tag("input", type="search", autocomplete="off"),
        class_="needs-script",
    )
    return tag("fieldset", tag("legend", "Kinds"), *boxes, word, class_="kinds")


def _budget(timed: Sequence[Timed], lost: str) -> Markup:
    """Return the boxes of a budget, and the line that says what fits."""
    choices = (tag("option", timed_name(how), value=timed_key(how)) for how in timed)
    which = tag("label", "timed at ", tag("select", *choices, class_="timed")) if timed else ""
    return tag(
        "fieldset",
        tag("legend", "What fits a budget?"),
        _limit("MiB", "at most ", " MiB"),
        _limit("ms", "at most ", " ms per prediction") if timed else "",
        _limit("points", "at most ", lost),
        which,
        tag("p", class_="fits", aria_live="polite"),
        class_="budget needs-script",
    )


def _limit(name: str, before: str, after: str) -> Markup:
    box = tag("input", type="number", min=0, step="any", data_limit=name, inputmode="decimal")
    return tag("label", before, box, after)
