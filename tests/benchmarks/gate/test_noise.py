"""What a busy machine did to a time is no regression; what the code did is one, beside it too."""

from typing import Any

import pytest

from tests.support.gated import BENCHMARKS, Suite, make_suite, verdict

SLOW = {"speed_up": 0.5, "speed_up_low": 0.45, "speed_up_high": 0.55}
TIMED = {"metric": "latency", "technique": "static-int8", "num_threads": 1, "latency_ms": 3.0}


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    return make_suite(pytester, monkeypatch)


def saved(suite: Suite, **latency: Any) -> None:
    """Save the history again, with other facts of its latency."""
    suite.write({"latency": {**TIMED, **latency}})
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)


def test_one_round_is_advice(suite: Suite) -> None:
    suite.pytester.makepyfile(test_bench=BENCHMARKS.replace("] * 5", "]"))
    suite.write({"cost": {"time_s": 0.00004}})
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)
    suite.write({"cost": {"time_s": 0.0004}})
    said = "advisory: test_bench.py::test_it[cost]: min 0.04 ms -> 0.4 ms (tolerance 400%) of one round"
    verdict(suite.gate(fail="min:400%"), 0, said, "4 of 4 compared, 0 regressions, 0 not usable")


@pytest.mark.parametrize("side", ["run", "history"])
def test_a_noisy_row_is_advice_and_the_others_are_gated(suite: Suite, side: str) -> None:
    noise = {"noisy": True, "preempted": 57}
    saved(suite, **(noise if side == "history" else {}))
    suite.write({"latency": {**TIMED, **SLOW, **(noise if side == "run" else {}), "time_s": 9.0}})
    where = "in this run" if side == "run" else "in the history"
    said = (
        f"advisory: test_bench.py::test_it[latency]: {where} other processes took the core in too"
    )
    found = suite.gate()
    verdict(found, 0, said, "advisory: test_bench.py::test_it[latency]: speed-up 2.00x", "0 regres")
    verdict(found, 0, "advisory: test_bench.py::test_it[latency]: mean 1000 ms -> 9000 ms")
    suite.write({"latency": {**TIMED, **SLOW, **noise}, "size": {"stored_bytes": 1001}})
    verdict(suite.gate(), 1, "size 1,000 -> 1,001 bytes", "1 regressions")


def test_a_speed_up_that_may_be_anything_is_advice(suite: Suite) -> None:
    saved(suite, speed_up=9.0, speed_up_low=4.0, speed_up_high=10.0)
    suite.write({"latency": {**TIMED, **SLOW}})
    verdict(suite.gate(), 0, "in the history its speed-up lies anywhere in 4.00..10.00x")


@pytest.mark.parametrize("side", ["run", "history"])
def test_a_run_whose_control_is_off_is_noisy(suite: Suite, side: str) -> None:
    control = {"metric": "latency", "technique": "baseline"}
    off, fine = (
        {**control, "speed_up": v, "speed_up_low": v - 0.02, "speed_up_high": v + 0.02}
        for v in (1.4, 1.0)
    )
    suite.write({"latency": TIMED, "size": off if side == "history" else fine})
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=4)
    suite.write({"latency": {**TIMED, **SLOW}, "size": off if side == "run" else fine})
    where = "this run" if side == "run" else "the history"
    said = f"{where} is noisy (test_bench.py::test_it[size]: the baseline against itself is not"
    found = suite.gate()
    verdict(found, 0, said, "times are advisory", "speed-up 2.00x", "0 regressions")
    suite.write({"latency": {**TIMED, **SLOW}, "size": fine})
    if side == "run":
        verdict(suite.gate(), 1, "FAILED: test_bench.py::test_it[latency]: speed-up 2.00x")


def test_the_interval_of_the_history_counts_too(suite: Suite) -> None:
    saved(suite, speed_up=2.0, speed_up_low=1.2, speed_up_high=2.1)
    near = {"speed_up": 1.1, "speed_up_low": 1.0, "speed_up_high": 1.2}
    suite.write({"latency": {**TIMED, **near}})
    verdict(suite.gate(), 0, "0 regressions")
    suite.write({"latency": {**TIMED, **SLOW}})
    verdict(suite.gate(), 1, "speed-up 2.00x -> 0.45..0.55x")


def test_many_rows_of_one_reason_are_one_line(suite: Suite) -> None:
    rows = "[f'r{i}' for i in range(40)]"
    many = BENCHMARKS.replace('"name", FACTS', f'"name", {rows}').replace("FACTS[name]", "ROW")
    many = many.replace("FACTS =", "ROW = {'metric': 'cost'}; FACTS =")
    suite.pytester.makepyfile(test_bench=many)
    suite.run("--benchmark-json=history.json").assert_outcomes(passed=40)
    skipped = many.replace("    facts = ", '    if name != "r0": pytest.skip("no")\n    facts = ')
    suite.pytester.makepyfile(test_bench=skipped)
    found = suite.gate()
    said = "39 benchmarks (test_bench.py::test_it[r1], test_bench.py::test_it[r2], test_bench.py::"
    verdict(found, 1, said, "in the history, but skipped or failed in this run", "1 not usable")
    assert found.stdout.str().count("in the history") == 1
