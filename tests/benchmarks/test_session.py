"""What a run says while it goes on."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.session import Minutes, minutes
from benchmarks.timing.speed_up import interleave


def test_a_line_per_minute_and_none_of_a_short_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [0.0], list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    step = Minutes("static-int8, batch 64", lines.append)
    for second in range(151):
        now[0] = float(second)
        step.tick()
        if second == 60:
            step.note("attempt 2")
    assert lines == [
        "static-int8, batch 64: it goes on, 1.0 min by now",
        "static-int8, batch 64: attempt 2, 2.0 min by now",
    ]


def test_a_timing_can_tell_between_pairs() -> None:
    calls: list[str] = []

    def timed(name: str) -> float:
        calls.append(name)
        return 1.0

    pairs = interleave(
        lambda: timed("a"), lambda: timed("b"), seed=0, budget_s=0,
        after_pair=lambda: calls.append("told"),
    )  # fmt: skip
    last = calls[-3 * len(pairs.technique_s) :]
    assert [sorted(last[i : i + 2]) for i in range(0, len(last), 3)] == [["a", "b"]] * 12
    assert last[2::3] == ["told"] * 12


def test_work_that_cannot_tell_is_watched_until_it_ends() -> None:
    lines, told = list[str](), threading.Event()

    def report(line: str) -> None:
        lines.append(line)
        told.set()

    threads = threading.active_count()
    step = Minutes("l1, compression", report, every_s=0.01)

    def fail() -> None:
        with step.watched():
            assert told.wait(60)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert lines[0].startswith("l1, compression: it goes on, 0.")
    assert threading.active_count() == threads


class Reporter:
    """A terminal that keeps its lines."""

    def __init__(self, verbosity: int) -> None:
        self.lines: list[str] = []
        self.verbosity = verbosity
        self.pluginmanager = self

    def get_verbosity(self) -> int:
        return self.verbosity

    def getplugin(self, name: str) -> Any:
        return self if name == "terminalreporter" else SimpleNamespace(
            global_and_fixture_disabled=threading.Lock
        )  # fmt: skip

    def ensure_newline(self) -> None:
        self.lines.append("")

    def write_line(self, line: str) -> None:
        self.lines[-1] += line


@pytest.mark.parametrize(("verbosity", "said"), [(0, 1), (1, 1), (-1, 0)])
def test_nothing_is_said_with_q(monkeypatch: pytest.MonkeyPatch, verbosity: int, said: int) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    terminal = Reporter(verbosity)
    step = minutes(terminal, "l1, accuracy")  # type: ignore[arg-type]
    now[0] = 90.0
    step.tick()
    assert terminal.lines == ["l1, accuracy: it goes on, 1.5 min by now"] * said
