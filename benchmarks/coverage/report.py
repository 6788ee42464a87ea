"""The table as Markdown: a row per network, sentences below it."""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import torch

from benchmarks.coverage.case import Cell
from benchmarks.machine.device import device_name
from compression.architectures import TIMM

HEAD = """# {whose} classification networks, function by function

Made by `{command}` on {date}:
{device}, {cores} cores, torch {torch}, {package} {version}, Python {python}. Weights are drawn at
random, 10 classes, 2 images of 64 pixels, or of the size that a network asks for.

`ok` says that the result was compared and is right, with a number where one tells something: dB
against the same network in float64, how many batch norms were folded, how many weights `left_out`
lists, what stays where half of the multiply-accumulates should. A refusal is a CompressionError: its
number leads to the sentence below. WRONG is a defect.
"""


def markdown(table: Mapping[str, Sequence[Cell]], headings: Sequence[str], command: str) -> str:
    """Return the page: `table` holds a cell per heading for each network."""
    notes: dict[str, int] = {}
    lines = [_line(["network", *headings]), _line(["---"] * (len(headings) + 1))]
    for name, cells in table.items():
        lines.append(_line([name, *(_text(cell, notes) for cell in cells)]))
    about = [f"{number}. {sentence}" for sentence, number in notes.items()]
    package = "timm" if any(name.startswith(TIMM) for name in table) else "torchvision"
    head = HEAD.format(
        command=command, date=datetime.date.today().isoformat(), cores=os.cpu_count(),
        device=device_name(torch.device("cpu")), torch=torch.__version__, package=package,
        version=version(package), python=platform.python_version(), whose=f"{package}'s",
    )  # fmt: skip
    return "\n".join([head, *lines, "", summary(table), "", *about]).rstrip() + "\n"


def summary(table: Mapping[str, Sequence[Cell]]) -> str:
    """Say how many cells there are of each outcome."""
    outcomes = [cell.outcome for cells in table.values() for cell in cells]
    counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in ("ok", "refused", "WRONG"))
    return f"{len(table)} networks, {len(outcomes)} cells: {counts}."


def _text(cell: Cell, notes: dict[str, int]) -> str:
    if cell.outcome == "ok":
        return f"ok {cell.about}".strip()
    sentence = f"{cell.outcome}: " * (cell.outcome == "WRONG") + " ".join(cell.about.split())
    return f"{cell.outcome} [{notes.setdefault(sentence, len(notes) + 1)}]"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
