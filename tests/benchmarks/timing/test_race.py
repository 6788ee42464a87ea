"""Competitors run in turn, and a process answers, reports its errors, and its end."""

import pytest

from benchmarks.machine.process import Process
from benchmarks.timing.race import MIN_ROUNDS, race
from compression.errors import CompressionError


def test_everybody_runs_once_a_round_in_changing_order() -> None:
    woken: list[str] = []

    def competitor(name: str, seconds: float):
        def run() -> float:
            woken.append(name)
            return seconds

        return run

    times = race({"a": competitor("a", 1.0), "b": competitor("b", 2.0)}, budget_s=60, max_rounds=30)
    assert times == {"a": (1.0,) * 30, "b": (2.0,) * 30}
    rounds = [tuple(woken[i : i + 2]) for i in range(0, len(woken), 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_a_spent_budget_leaves_the_fewest_rounds() -> None:
    assert len(race({"a": lambda: 1.0}, budget_s=0)["a"]) == MIN_ROUNDS
    with pytest.raises(CompressionError, match="max_rounds"):
        race({}, budget_s=1, max_rounds=0)


SERVER = """
import sys
from benchmarks.machine.process import serve
from compression.errors import CompressionError
def answer(do):
    print("noise of a library")
    if do == "fail":
        raise CompressionError("the file is empty")
    if do == "die":
        print("out of memory", file=sys.stderr, flush=True)
        sys.exit(3)
    return {"did": do}
serve(answer)
"""


def test_a_process_answers_says_its_errors_and_its_end(tmp_path, monkeypatch) -> None:
    (tmp_path / "made_up_server.py").write_text(SERVER)
    monkeypatch.syspath_prepend(tmp_path)
    process = Process("made_up_server", {}, log=tmp_path / "log")
    assert process.ask(do="this") == {"did": "this"}
    with pytest.raises(CompressionError, match="the file is empty"):
        process.ask(do="fail")
    assert process.ask(do="that") == {"did": "that"}
    with pytest.raises(CompressionError, match=r"(?s)ended \(3\).*out of memory") as ended:
        process.ask(do="die")
    assert "made_up_server" in str(ended.value)
    process.close()
