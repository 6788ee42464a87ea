"""Drawings as SVG: axes, lines, points with their intervals, and names beside them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.report.page.html import Markup, join, tag
from benchmarks.report.page.scales import Scale, linear

WIDTH, HEIGHT = 460, 330
LEFT, RIGHT, TOP, BOTTOM = 50, 448, 12, 284
"""The edges of the field in which a chart's points lie."""
COLOURS = 9
"""How many colours report.css has: Okabe and Ito's for the colour-blind, and grey."""
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",  # circle
    "M-4 -4h8v8h-8z",  # square
    "M0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",  # diamond
    "M0 -5l5.2 9h-10.4z",  # triangle
    "M0 5l5.2 -9h-10.4z",  # triangle on its point
    "M-2 -5h4v3h3v4h-3v3h-4v-3h-3v-4h3z",  # plus
    "M0 -5.5l5.3 3.9l-2 6.2h-6.6l-2 -6.2z",  # pentagon
    "M-5 -2.2l2.8 -2.8l2.2 2.2l2.2 -2.2l2.8 2.8l-2.2 2.2l2.2 2.2l-2.8 2.8l-2.2 -2.2l-2.2 2.2"
    "l-2.8 -2.8l2.2 -2.2z",  # cross
    "M-5.5 -2h11v4h-11z",  # bar
)
LETTER, LINE = 6.3, 13.0
"""The mean width of a letter and the height of a line of names, in units of the drawing."""

Place = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale, what it shows, and how its numbers are written."""

    scale: Scale
    label: str
    form: Callable[[float], str] = "{:g}".format


def accuracy_axis(percents: Iterable[float], title: str = "accuracy, %") -> Axis:
    """Return the axis of accuracies in percent, or scores, with room for names above the highest."""
    scale = linear(percents, BOTTOM, TOP + 2 * LINE)
    return Axis(scale, f"test {title}", scale.written)


def chart(x: Axis, y: Axis, *content: Markup, label: str, **about: object) -> Markup:
    """Return a drawing with its axes; `label` says to who cannot see it what it shows."""
    return tag(
        "svg",
        *_x_axis(x),
        *_y_axis(y),
        *content,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
        **about,
    )


def _x_axis(axis: Axis) -> Iterable[Markup]:
    for value in axis.scale.ticks():
        at = axis.scale(value)
        yield tag("path", d=f"M{at} {TOP}V{BOTTOM}", class_="grid")
        yield tag("text", axis.form(value), x=at, y=BOTTOM + 17, class_="tick middle")
    yield tag("text", axis.label, x=(LEFT + RIGHT) / 2, y=HEIGHT - 8, class_="middle")


def _y_axis(axis: Axis) -> Iterable[Markup]:
    for value in axis.scale.ticks():
        at = axis.scale(value)
        yield tag("path", d=f"M{LEFT} {at}H{RIGHT}", class_="grid")
        yield tag("text", axis.form(value), x=LEFT - 7, y=at + 4, class_="tick end")
    middle = (TOP + BOTTOM) / 2
    turned = f"rotate(-90 12 {middle:g})"
    yield tag("text", axis.label, x=12, y=middle, transform=turned, class_="middle")


def marker(number: int, at: Place, *, hollow: bool = False) -> Markup:
    """Return the shape of a kind at a place, in its colour."""
    style = f"c{number % COLOURS}" + " hollow" * hollow
    place = f"translate({at[0]:g} {at[1]:g})"
    return tag("path", d=SHAPES[number % len(SHAPES)], transform=place, class_=style)


def whiskers(number: int, at: Place, *, x: Place | None = None, y: Place | None = None) -> Markup:
    """Return the lines of the intervals around a place: from and to along each axis."""
    parts = []
    if x:
        parts.append(f"M{x[0]:g} {at[1]:g}H{x[1]:g}")
    if y:
        parts.append(f"M{at[0]:g} {y[0]:g}V{y[1]:g}")
    return tag("path", d="".join(parts), class_=f"whisker c{number % COLOURS}")


def polyline(places: Sequence[Place], style: str) -> Markup:
    """Return a line through places."""
    return tag("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in places), class_=style)


def steps(places: Sequence[Place], style: str) -> Markup:
    """Return a line through places that goes along x first."""
    (x, y), *rest = places
    return tag("path", d=f"M{x:g} {y:g}" + "".join(f"H{a:g}V{b:g}" for a, b in rest), class_=style)


def across(y: float, style: str, name: str = "") -> Markup:
    """Return a horizontal line and its name."""
    line = tag("path", d=f"M{LEFT} {y:g}H{RIGHT}", class_=style)
    return join(line, tag("text", name, x=LEFT + 4, y=y - 4, class_="tick name") if name else "")


def names(points: Iterable[tuple[str, Place]], taken: Iterable[Place]) -> Markup:
    """Return names beside their points, without those that find no free place."""
    boxes = [(x - 5, y - 5, x + 5, y + 5) for x, y in taken]
    found = []
    for name, (x, y) in points:
        wide = LETTER * len(name)
        for left, base in _places_beside(x, y, wide):
            box = (left, base - LINE + 3, left + wide, base + 3)
            if left >= LEFT and box[2] <= WIDTH and not any(_meet(box, b) for b in boxes):
                boxes.append(box)
                found.append(tag("text", name, x=round(left, 1), y=base, class_="name"))
                break
    return join(*found)


def _places_beside(x: float, y: float, wide: float) -> Iterable[Place]:
    """Yield where a name of a point may begin, the best place first."""
    for down in (4, -9, 17, -22, 30):
        yield from ((x + 8, y + down), (x - 8 - wide, y + down), (x - wide / 2, y + down))


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def legend(entries: Iterable[tuple[int, str]]) -> Markup:
    """Return the shapes and names of lines or kinds, below a chart."""
    items = (tag("li", icon(number), " ", name) for number, name in entries)
    return tag("ul", *items, class_="legend")


def icon(number: int) -> Markup:
    """Return a small drawing of a kind's shape."""
    return tag(
        "svg", marker(number, (0, 0)), viewBox="-7 -7 14 14", class_="icon", aria_hidden="true"
    )
