"""What a run prints at its end: its table, what changed since a saved run, the best row in a budget."""

from typing import Any

import pytest

from benchmarks.facts.record import Facts
from benchmarks.gate.evidence import damage
from benchmarks.options import BUDGET, devices, is_verbose
from benchmarks.parameters import measured
from benchmarks.report.brief import brief
from benchmarks.report.budget import choose
from benchmarks.report.changes import changes
from benchmarks.report.rows import SHOWN, rows
from benchmarks.report.table import render
from benchmarks.workloads import DIGITS, DIGITS_QUICK

MORE = "-v adds what each file is made of, weights, MACs, seconds, times, and layers left out"
NEEDED = ("device", "technique", "simulated", "workload", "data")
"""What a saved entry must say of itself, beside its metric, to be shown beside this run's."""


def print_table(reporter: Any, facts: list[Facts], config: pytest.Config) -> None:
    """Print a line per technique, or all that is known of each with -v."""
    reporter.section(f"compression: {_about(facts[0])}", sep="=")
    if is_verbose(config):
        _print(reporter, render(rows(facts)))
    else:
        _print(reporter, f"{brief(rows(facts))}\n{MORE}")
    if facts[0]["workload"] == DIGITS_QUICK.name:
        reporter.line(_left_out(config))


def print_changes(reporter: Any, facts: list[Facts], config: pytest.Config) -> None:
    """Print this run beside what --benchmark-compare names: bytes, accuracy and speed-up."""
    compared = config._benchmarksession.compared_mapping  # type: ignore[attr-defined]
    for path, entries in (compared or {}).items():
        then = [fact for entry in entries.values() if _is_usable(fact := entry.get("extra_info"))]
        reporter.section(f"then and now: {path}", sep="-")
        if not then:
            reporter.line("nothing is compared: it has no entry of this suite")
        elif _about(then[0]) != _about(facts[0]):
            reporter.line(f"nothing is compared: it is of {_about(then[0])}")
        else:
            _print(reporter, changes(rows(then), rows(facts)))


def print_choice(reporter: Any, facts: list[Facts], config: pytest.Config) -> None:
    """Print the best row within --budget, where it is given."""
    budget = config.stash[BUDGET]
    if budget:
        reporter.section(f"budget: {' '.join(limit.given for limit in budget)}", sep="-")
        _print(reporter, "\n".join(choose(facts, budget).lines()))


def _left_out(config: pytest.Config) -> str:
    """Return the sentence on what a quick look leaves out."""
    kind = devices(config)[0]
    few, whole = (len([*measured(workload, kind)]) for workload in (DIGITS_QUICK, DIGITS))
    what = f"{few} of {whole} rows, five layers in place of ResNet-18, few rounds, no targets"
    return f"a quick look: {what}"


def _about(fact: Facts) -> str:
    return f"{fact['workload']} ({fact['data']})"


def _is_usable(fact: Any) -> bool:
    """Tell whether a saved entry is of this suite, and undamaged."""
    if not isinstance(fact, dict) or fact.get("metric") not in SHOWN or damage(fact):
        return False
    timed = ("timing", "batch_size") if fact["metric"] == "latency" else ()
    return all(name in fact for name in (*NEEDED, *timed))


def _print(reporter: Any, text: str) -> None:
    for line in text.splitlines():
        reporter.line(line)
