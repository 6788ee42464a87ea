"""HTML and SVG as text: whatever is no Markup is escaped."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

VOID = frozenset({"input", "br"})
"""Elements without content, and so without an end."""
NOTHING = "–"
"""What a cell shows where nothing was measured."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(content: object) -> Markup:
    """Return `content` as HTML: escaped, but for Markup."""
    return content if isinstance(content, Markup) else Markup(escape(str(content)))


def join(*parts: object) -> Markup:
    """Return the parts as HTML one after another."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element: `class_` is class, `data_row` is data-row; None and False leave one out.

    >>> tag("p", "1 < 2", class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2</p>'
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_quoted(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    end = "" if name in VOID else f"{join(*content)}</{name}>"
    return Markup(f"<{name}{said}>{end}")


def _quoted(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else escape(str(value))


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table, with attributes: what it shows, and what it is sorted by (None: last)."""

    shows: object = NOTHING
    value: float | str | None = None
    about: Mapping[str, object] = field(default_factory=dict)


def number(value: float | None, form: Callable[[float], str]) -> Cell:
    """Return the cell of a number, or of none."""
    return Cell() if value is None else Cell(form(value), float(value))


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a table, the first cell its name; `about` are attributes of the line."""

    cells: Sequence[Cell]
    about: Mapping[str, object] = field(default_factory=dict)


def table(
    heads: Sequence[str | Cell], lines: Iterable[Line], caption: str, *, style: str = ""
) -> Markup:
    """Return a table whose columns can be sorted, in a frame that scrolls sideways.

    A column that no line has a cell for is left out.
    """
    found = list(lines)
    kept = [i for i in range(len(heads)) if any(line.cells[i].shows != NOTHING for line in found)]
    cells = [head if isinstance(head, Cell) else Cell(head) for head in (heads[i] for i in kept)]
    found = [Line([line.cells[i] for i in kept], line.about) for line in found]
    styles = [_style(line.cells[i] for line in found) for i in range(len(cells))]
    top = tag(
        "tr",
        *(
            tag("th", head.shows, scope="col", class_=style, **head.about)
            for head, style in zip(cells, styles, strict=True)
        ),
    )
    body = (tag("tr", *_cells(line.cells, styles), **line.about) for line in found)
    whole = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body))
    return tag(
        "div",
        whole,
        class_=f"scroll {style}".strip(),
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _style(column: Iterable[Cell]) -> str | None:
    """Return how a column is set: texts to the left, numbers to the right."""
    return None if any(isinstance(cell.value, float | int) for cell in column) else "text"


def _cells(cells: Sequence[Cell], styles: Sequence[str | None]) -> Iterable[Markup]:
    for i, (cell, style) in enumerate(zip(cells, styles, strict=True)):
        about = {"data_v": cell.value, "class_": style, **cell.about}
        if i:
            yield tag("td", cell.shows, **about)
        else:
            yield tag("th", cell.shows, scope="row", **about)
