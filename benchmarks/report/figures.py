"""The paper's figures 2 and 6, and size and time against accuracy, as SVG and PNG."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.facts.record import Facts
from benchmarks.report.drawings import distillation, pareto, pruning, size_curve
from benchmarks.report.folder import make_folder
from benchmarks.report.quality import QUALITIES
from benchmarks.report.removal import macs_accuracy
from compression.errors import CompressionError

Draw = Callable[[list[Facts]], Figure | str]
STYLE: Any = {"font.size": 9, "svg.hashsalt": "compression", "axes.grid": True, "grid.alpha": 0.3}
ACCURACY_DRAWINGS: dict[str, Draw] = {
    "figure2-pruning": pruning,
    "figure6-distillation": distillation,
    "pareto-size-accuracy": pareto,
    "size-curve": size_curve,
}
DRAWINGS: dict[str, Draw] = {"macs-accuracy": macs_accuracy}
"""Of all facts, size and latency too."""


def write_figures(facts: Iterable[Facts], folder: Path) -> tuple[list[Path], list[str]]:
    """Write what the facts allow; return the files, and a reason for each figure left out.

    Each of two devices has a set of figures, named after it.
    """
    make_folder(folder, "--figures")
    every_device = list(facts)
    known = (f["device"] for f in every_device if f["metric"] in QUALITIES)
    devices = list(dict.fromkeys(known)) or [""]
    written: list[Path] = []
    missing: list[str] = []
    for device in devices:  # a set of figures each: a line through two devices would compare them
        found = [f for f in every_device if f["device"] == device]
        suffix = f"-{device}" if len(devices) > 1 else ""
        with mpl.rc_context(STYLE):
            for name, figure in _drawn(found):
                if isinstance(figure, str):
                    missing.append(f"{name}{suffix} {figure}")
                else:
                    written += _save(figure, folder / f"{name}{suffix}")
    return written, missing


def _drawn(facts: list[Facts]) -> Iterator[tuple[str, Figure | str]]:
    """Draw each figure of one device, or say what it needs."""
    accuracy = [f for f in facts if f["metric"] in QUALITIES]
    for name, draw in ACCURACY_DRAWINGS.items():
        yield name, draw(accuracy)
    for name, draw in DRAWINGS.items():
        yield name, draw(facts)


def _save(figure: Figure, path: Path) -> Iterator[Path]:
    metadata: dict[str, Any] = {"svg": {"Date": None}, "png": {"Software": None}}
    for ending in metadata:
        file = path.with_name(f"{path.name}.{ending}")
        try:
            figure.savefig(file, dpi=200, metadata=metadata[ending])
        except OSError as error:
            raise CompressionError(f"{file}: not written, {error.strerror}") from error
        yield file
