"""The drawings in the READMEs hold: no import goes upward, none between rooms of one floor.

A drawing is a line in a fenced block, `benchmarks/gate/   0 scope evidence | 1 rules | 2 plugin`;
lines that begin with spaces go on with the one before.
"""

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("compression", "benchmarks")
ALONE = 2
"""Modules of a package that needs no drawing."""


def drawings() -> dict[str, list[set[str]]]:
    """Return the floors of each package that a README draws, the lowest first."""
    found: dict[str, list[set[str]]] = {}
    for readme in (
        ROOT / "README.md",
        *ROOT.glob("compression/**/README.md"),
        *ROOT.glob("benchmarks/**/README.md"),
    ):
        for block in re.findall(
            r"^```\w*\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL
        ):
            for package, floors in _drawn(block):
                assert found.setdefault(package, floors) == floors, f"{package} is drawn twice"
    return found


def _drawn(block: str) -> Iterator[tuple[str, list[set[str]]]]:
    joined = re.sub(r"\n +", " ", block)
    for package, drawing in re.findall(r"^([\w/]+)/ +(0 .*)$", joined, re.MULTILINE):
        numbered = [floor.split() for floor in drawing.split("|")]
        assert [n for n, *_ in numbered] == [str(i) for i in range(len(numbered))], package
        yield package, [{name.rstrip("/") for name in names} for _, *names in numbered]


def rooms(package: str) -> dict[str, list[Path]]:
    """Return the files of each module or folder of a package; its __init__ and __main__ are above."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if not room.startswith("__"):
            found.setdefault(room, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """Return the dotted names that a file imports, within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def packages() -> list[str]:
    """Return the folders with more modules than can be seen at a glance."""
    folders = [p.parent for top in PACKAGES for p in (ROOT / top).rglob("__init__.py")]
    names = [str(folder.relative_to(ROOT)) for folder in sorted(folders)]
    return [name for name in names if len(rooms(name)) > ALONE]


def upward(package: str, floors: list[set[str]]) -> Iterator[str]:
    """Name each import of a room on the same floor or above, or of the package's own face."""
    levels = {pattern: i for i, floor in enumerate(floors) for pattern in floor}

    def level(room: str) -> int:
        return next((i for pattern, i in levels.items() if fnmatch(room, pattern)), len(floors))

    prefix = package.replace("/", ".") + "."
    for room, paths in rooms(package).items():
        for path in paths:
            for name in imported(path):
                other = name.removeprefix(prefix).split(".")[0]
                if name.startswith(prefix) and other != room and level(other) >= level(room):
                    yield f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", packages())
def test_every_room_stands_on_a_floor_and_imports_from_below(package: str) -> None:
    drawn = drawings()
    assert package in drawn, f"no README draws {package}"
    patterns = set().union(*drawn[package])
    found = rooms(package)
    unplaced = [room for room in found if not any(fnmatch(room, p) for p in patterns)]
    assert unplaced == [], f"rooms of {package} that its drawing lacks"
    empty = [p for p in patterns if not any(fnmatch(room, p) for room in found)]
    assert empty == [], f"rooms that {package} lacks"
    assert sorted(upward(package, drawn[package])) == []


def test_only_what_there_is_is_drawn() -> None:
    assert [package for package in drawings() if not (ROOT / package).is_dir()] == []


def test_an_upward_and_a_sideways_import_are_found() -> None:
    floors = drawings()["compression"]
    assert sorted(upward("compression", floors[::-1])) != []
    flat = [set().union(*floors)]
    assert any("imports compression.errors" in line for line in upward("compression", flat))


def test_compression_knows_nothing_of_benchmarks() -> None:
    for path in (ROOT / "compression").rglob("*.py"):
        assert not {n for n in imported(path) if n.split(".")[0] in ("benchmarks", "tests")}, path


def test_no_test_imports_from_a_test() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"(from|import) tests\.[\w.]*\btest_", text), path
