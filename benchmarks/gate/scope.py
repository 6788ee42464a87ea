"""What a run was asked to leave out, by any option of pytest: that is missing, but not gone."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_NARROWING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf")
_STEPWISE = ("stepwise", "stepwise_skip", "stepwise_reset")
_UNCOLLECTED = ("ignore", "ignore_glob", "lf")
"""Options whose tests pytest does not collect, so that it cannot say what was left out."""


def arguments(config: pytest.Config, *, of_project: bool = True) -> list[str]:
    """Return the arguments of this run, with argument files read.

    Without `of_project` the project's own addopts are left out; what `-o addopts=` gives in their
    place belongs to this run.
    """
    overridden = any(o.startswith("addopts=") for o in config.getoption("override_ini") or ())
    addopts = [str(a) for a in config.getini("addopts")] if of_project or overridden else []
    environment = shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))
    given = [str(a) for a in config.invocation_params.args]
    return list(_expand([*addopts, *environment, *given]))


def _expand(given: Sequence[str]) -> Iterator[str]:
    """Read argument files as argparse does: one argument per line."""
    for argument in given:
        if argument.startswith("@"):
            text = Path(argument[1:]).read_text(encoding=sys.getfilesystemencoding())
            yield from _expand(text.splitlines())
        else:
            yield argument


@dataclass(slots=True)
class Scope:
    """What pytest was asked to run, and what it collected of it."""

    config: pytest.Config
    narrowed: bool = field(init=False)
    uncollected: bool = field(init=False)
    selected: set[str] = field(default_factory=set)
    deselected: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Parse the arguments with pytest's own parser: it knows what `-vk NAME` means."""
        given = arguments(self.config, of_project=False)
        options = self.config._parser.parse_known_args(given)
        self.narrowed = any(getattr(options, n, None) for n in (*_NARROWING, *_STEPWISE))
        self.uncollected = any(getattr(options, name, None) for name in _UNCOLLECTED)

    def missing(self, names: Sequence[str], ran: set[str]) -> Iterator[tuple[str, str]]:
        """Yield the names of a history that should have run and did not, each with the reason."""
        places = [_place(self.config, str(argument)) for argument in self.config.args]
        for name in names:
            file, _, test = name.partition("::")
            path = (self.config.rootpath / file).resolve()
            if not any(_covers(place, path, test) for place in places):
                continue
            if name in self.selected:
                if name not in ran:
                    yield name, "in the history, but skipped or failed in this run"
            elif name in self.deselected:
                if not self.narrowed:
                    yield name, "in the history, left out of a full run (a new mark or default -m?)"
            elif not (self.uncollected and path.exists()):
                yield name, "in the history, gone from this run (renamed or removed?)"


def _place(config: pytest.Config, argument: str) -> tuple[Path, str]:
    """Return the file or folder of an argument, and the test in it that it names."""
    before, bracket, parameters = argument.partition("[")
    file, _, test = before.partition("::")
    path = (config.invocation_params.dir / file).resolve()
    if config.getoption("pyargs") and not path.exists():
        path = _module(file) or path
    return path, test + bracket + parameters


def _module(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).resolve()
    return path.parent if path.name == "__init__.py" else path


def _covers(place: tuple[Path, str], path: Path, test: str) -> bool:
    where, named = place
    if not named:
        return path.is_relative_to(where)
    return path == where and (test == named or test.startswith((f"{named}[", f"{named}::")))
