"""The tables of the READMEs, from the JSON of benchmarks/references.

`python -m benchmarks.report.documents` writes them, with `--check` it names the files whose text is
another and ends with 1. A README says where a table goes, of which file, and which kind it is:

    <!-- table: digits-cpu.json quality,speed rows=baseline,static-int8 -->
    <!-- end -->

What stands between the two is replaced. Kinds are parts of a run's table (tables.PARTS, several after
a comma), of all techniques or of `rows`, or one of tables.TABLES. Between `<!-- facts -->` and
`<!-- end -->` stands what a benchmark may record.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill

from benchmarks.facts.schema import facts_table
from benchmarks.report.reference import read_reference
from benchmarks.report.tables import PARTS, TABLES, run_table
from compression.atomic import write_atomically
from compression.errors import CompressionError

ROOT = Path(__file__).resolve().parents[2]
REFERENCES = "benchmarks/references"
ROOMS = ("compression", "benchmarks", "tests")
START = re.compile(r"^<!-- (table|facts)(?::(.*?))?\s*-->\n", re.DOTALL | re.MULTILINE)
END = "<!-- end -->"
WIDTH = 120


def readmes(root: Path) -> list[Path]:
    """Return the repository's README.md files, the front door first."""
    inner = [path for room in ROOMS for path in sorted((root / room).rglob("README.md"))]
    return [root / "README.md", *inner]


def rewrite(text: str, readme: Path, root: Path) -> str:
    """Return a README's text with its tables made anew; CompressionError names what cannot be."""
    try:
        return "".join(_pieces(text, readme, root))
    except CompressionError as error:
        raise CompressionError(f"{readme.relative_to(root)}: {error}") from error


def _pieces(text: str, readme: Path, root: Path) -> Iterator[str]:
    place = 0
    for start in START.finditer(text):
        kind, what = start[1], " ".join((start[2] or "").split())
        if END in text[place : start.start()]:
            raise CompressionError(f"an {END} before '{kind}: {what}' ends no table")
        end, following = text.find(END, start.end()), START.search(text, start.end())
        if end < 0 or (following and following.start() < end):
            raise CompressionError(f"'{kind}: {what}' has no {END}")
        made = _table(what, readme, root) if kind == "table" else f"\n{facts_table()}\n\n"
        yield text[place : start.end()] + made + END
        place = end + len(END)
    if END in text[place:]:
        raise CompressionError(f"the last {END} ends no table")
    yield text[place:]


def _table(what: str, readme: Path, root: Path) -> str:
    """Return a table and its caption; `what` is a file's name, kinds and perhaps rows."""
    asked = re.fullmatch(r"(\S+) (\S+)(?: rows=(\S+))?", what)
    if not asked:
        raise CompressionError(f"'table: {what}' must be: FILE KIND[,KIND] [rows=NAME,...]")
    name, kind, names = asked[1], asked[2], asked[3].split(",") if asked[3] else []
    reference = read_reference(root / REFERENCES / name)
    if not (kind in TABLES and not names) and not set(kind.split(",")) <= set(PARTS):
        known = ", ".join([*PARTS, *TABLES])
        raise CompressionError(f"'table: {what}' is of no known kind: choose {known}")
    metrics, make = TABLES.get(kind, (None, None))
    facts = reference.of(metrics) if metrics else list(reference.facts)
    try:
        table = make(facts) if make else run_table(facts, kind.split(","), names)
    except KeyError as error:
        raise CompressionError(f"'table: {what}': {name} lacks {error}") from error
    link = Path(os.path.relpath(reference.path, readme.parent)).as_posix()
    caption = f"[{name}]({link}): {reference.caption(facts)}."
    return f"\n{table}\n\n{fill(caption, WIDTH, break_on_hyphens=False)}\n\n"


def differences(root: Path) -> dict[Path, str]:
    """Return what each README should be whose text is another."""
    found = {}
    for path in readmes(root):
        text = path.read_text(encoding="utf-8")
        anew = rewrite(text, path, root)
        if anew != text:
            found[path] = anew
    return found


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write the READMEs whose tables are old, or name them."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report.documents",
        description="Make the tables of the READMEs from the JSON of benchmarks/references.",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if old")
    options = parser.parse_args(arguments)
    try:
        found = differences(root)
        for path, text in found.items():
            if not options.check:
                write_atomically(path, text.encode())
            verb = "differs from its JSON" if options.check else "written"
            print(f"{path.relative_to(root)}: {verb}")
    except CompressionError as error:
        parser.error(str(error))
    return int(options.check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
