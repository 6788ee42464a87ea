"""What a run prints at its end: its table, what changed since a saved run, the best row in a budget."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from benchmarks.facts.record import Facts
from benchmarks.facts.schema import FACTS
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
NEEDED, TIMED = ("device", "technique", "simulated", "workload", "data"), ("timing", "batch_size")
"""What a saved entry must say of itself to be shown beside this run's, and one of a latency besides."""
SCORE = ("score", "score_name", "score_unit", "higher_is_better")
COMPARED = ("metric", "sweep", "stored_bytes", "accuracy", "speed_up", *SCORE)


def shows_all(entries: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether the table shows what each of pytest-benchmark's entries is about."""
    return all(entry["extra_info"].get("metric") in SHOWN for entry in entries)


def print_table(reporter: Any, facts: list[Facts], config: pytest.Config) -> None:
    """Print a line per technique, or all that is known of each with -v."""
    verbose = is_verbose(config)
    table = render(rows(facts)) if verbose else brief(rows(facts))
    if not table:
        return
    reporter.section(f"compression: {_about(facts[0])}", sep="=")
    _print(reporter, table)
    if not verbose:
        reporter.line(MORE)
    if facts[0]["workload"] == DIGITS_QUICK.name:
        reporter.line(_left_out(config))


def print_changes(reporter: Any, facts: list[Facts], config: pytest.Config) -> None:
    """Print this run beside what --benchmark-compare names: bytes, accuracy and speed-up."""
    compared = config._benchmarksession.compared_mapping  # type: ignore[attr-defined]
    for path, entries in (compared or {}).items():
        then = [fact for entry in entries.values() if (fact := _usable(entry.get("extra_info")))]
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


def _usable(fact: Any) -> Facts | None:
    """Return what is shown of a saved entry; None where it is not of this suite, or damaged."""
    if not isinstance(fact, dict) or fact.get("metric") not in SHOWN or damage(fact):
        return None
    needed = (*NEEDED, *(TIMED if fact["metric"] == "latency" else ()))
    if not all(name in fact and FACTS[name].holds(fact[name]) for name in needed):
        return None
    return {name: fact[name] for name in (*needed, *COMPARED) if name in fact}


def _print(reporter: Any, text: str) -> None:
    for line in text.splitlines():
        reporter.line(line)
