"""The report's two files, written whole or not at all."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gate.changes import Changes
from benchmarks.report.folder import make_folder
from benchmarks.report.page.page import page
from benchmarks.report.page.runs import Run
from benchmarks.report.summary import summary
from compression.atomic import write_atomically
from compression.errors import CompressionError

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that GitHub shows below a job."""


def write_report(
    folder: Path,
    runs: Sequence[Run],
    changes: Changes | None = None,
    *,
    against: str = "",
    option: str,
) -> list[Path]:
    """Write report.html and summary.md of `runs`, the oldest first; return their paths.

    The summary is also appended to the file that GITHUB_STEP_SUMMARY names. `option` is what named the
    folder, for the CompressionError where it cannot be written to.
    """
    make_folder(folder, option)
    texts = {
        "report.html": page(runs, changes, against),
        "summary.md": summary(runs, changes, against),
    }
    paths = [folder / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_atomically(path, text.encode())
    if step := os.environ.get(STEP_SUMMARY):
        try:
            with Path(step).open("a", encoding="utf-8") as file:
                file.write(texts["summary.md"])
        except OSError as error:
            raise CompressionError(
                f"{STEP_SUMMARY}={step}: not written, {error.strerror}"
            ) from error
    return paths
