"""Which function takes which of torchvision's networks: `python -m benchmarks.coverage`."""

from benchmarks.coverage.case import Case, Cell, WrongResultError, cell_of
from benchmarks.coverage.columns import COLUMNS
from benchmarks.coverage.report import markdown

__all__ = ["COLUMNS", "Case", "Cell", "WrongResultError", "cell_of", "markdown"]
