"""The table at the end of a run: a row per technique, at most 100 columns wide."""

from collections.abc import Sequence

from benchmarks.report.columns import Cells, Groups, notes, parts
from benchmarks.report.rows import Row


def render(rows: list[Row], *, width: int = 100) -> str:
    """Return the table as text: blocks no wider than `width` under one another.

    Quality and size stand above what the files are made of and speed, below it what no cell has room
    for. Columns that do not fit go into a further block, whole: a name or a number cut short would be a
    wrong one. Only a single column beyond `width` is wider.
    """
    blocks = [render_groups(groups, width=width) for groups in parts(rows)]
    return "\n\n".join(block for block in [*blocks, render_notes(rows)] if block)


def render_groups(groups: Groups, *, width: int = 100) -> str:
    """Return one part of the table as text, empty where it has no columns beside the names."""
    return "\n\n".join(_text(block) for block in _blocks(groups, width))


def render_notes(rows: list[Row]) -> str:
    """Return the sentences that no cell has room for, each once."""
    return "\n".join(dict.fromkeys(note for row in rows for note in notes(row)))


def render_markdown(rows: list[Row]) -> str:
    """Return quality, files and speed as Markdown tables."""
    return "\n\n".join(markdown(_join(group)) for group in parts(rows) if len(group) > 1)


def _blocks(groups: Groups, width: int) -> list[Cells]:
    """Join groups side by side while they fit, the names before each block."""
    names, *rest = groups
    blocks: list[Groups] = []
    for group in rest:
        if blocks and _width(_join([*blocks[-1], group])) <= width:
            blocks[-1].append(group)
        else:
            blocks.append([names, group])
    return [_join(block) for block in blocks]


def _join(groups: Groups) -> Cells:
    return [[cell for part in line for cell in part] for line in zip(*groups, strict=True)]


def _widths(cells: Cells) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _width(cells: Cells) -> int:
    return sum(_widths(cells)) + 2 * (len(cells[0]) - 1)


def _text(cells: Cells) -> str:
    first, *others = _widths(cells)
    lines = [
        "  ".join(
            [line[0].ljust(first), *(c.rjust(w) for c, w in zip(line[1:], others, strict=True))]
        )
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(cells: Cells, left: Sequence[int] = (0,)) -> str:
    """Return a Markdown table; `left` are the columns of text, the others hold numbers."""
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    rule = "|" + "|".join("-" if i in left else "-:" for i in range(len(cells[0]))) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
