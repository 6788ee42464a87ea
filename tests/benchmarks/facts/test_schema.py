"""FACTS describes what the saved runs hold, and its table has a line for each."""

import ast
import json

import pytest

from benchmarks.facts.schema import FACTS, METRICS, check_fact, facts_table
from benchmarks.machine.cuda_flags import cuda_flags
from tests.support.places import REFERENCES, ROOT

RUNS = sorted(path.name for path in REFERENCES.glob("*.json"))


@pytest.mark.parametrize("name", RUNS)
def test_a_saved_run_holds_what_the_schema_says(name: str) -> None:
    entries = json.loads((REFERENCES / name).read_text())["benchmarks"]
    assert entries
    for entry in entries:
        facts = entry["extra_info"]
        for fact, value in facts.items():
            check_fact(fact, value)
            metrics = FACTS[fact].metrics
            assert not metrics or facts["metric"] in metrics, f"{entry['name']}: {fact}"


def test_what_the_benchmarks_record_by_name_is_in_the_schema() -> None:
    recorded = set()
    for path in (ROOT / "benchmarks").glob("test_*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "record":
                recorded |= {keyword.arg for keyword in call.keywords if keyword.arg}
    assert {"metric", "layers", "rival", "model_sizes"} <= recorded, "of files that run rarely too"
    assert recorded <= FACTS.keys()


def test_the_flags_of_a_gpu_are_of_their_types() -> None:
    for name, value in cuda_flags().items():
        check_fact(name, value)


def test_the_metrics_of_a_fact_exist() -> None:
    for name, fact in FACTS.items():
        assert set(fact.metrics) <= set(METRICS), name
        assert fact.meaning, name


def test_the_table_has_a_line_for_each_fact() -> None:
    head, rule, *lines = facts_table().splitlines()
    assert [line.split(" | ")[0].strip("| `") for line in lines] == list(FACTS)
    assert {line.count("|") for line in (head, rule, *lines)} == {6}
    assert "| `latency_ms` | number above 0 | ms | latency | lower quartile" in facts_table()
