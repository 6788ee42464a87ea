"""Write the report of saved runs: `python -m benchmarks.report FILE... -o DIR [--against FILE]`."""

import argparse
import sys
from pathlib import Path

from benchmarks.gate.changes import Changes, changes
from benchmarks.gate.history import read_history
from benchmarks.report.page.runs import read_runs
from benchmarks.report.written import write_report
from compression.errors import CompressionError


def main(arguments: list[str] | None = None) -> int:
    """Write report.html and summary.md; a usage error says what cannot be read or written."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description="Write one HTML page of saved runs, and a summary of the newest.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a saved run")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    parser.add_argument(
        "--against", type=Path, metavar="FILE", help="what the newest is compared with"
    )
    options = parser.parse_args(arguments)
    try:
        runs = read_runs(options.files)
        found = _changes(runs[-1].path, options.against) if options.against else None
        against = options.against.name if options.against else ""
        written = write_report(options.output, runs, found, against=against, option="-o")
    except CompressionError as error:
        parser.error(str(error))
    for path in written:
        print(path)
    return 0


def _changes(newest: Path, against: Path) -> Changes:
    now = read_history(newest)
    return changes(now.facts, now.suite, read_history(against))


if __name__ == "__main__":
    sys.exit(main())
