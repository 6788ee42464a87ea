"""Recorded runs are usable as they are, and refused in one sentence however they are damaged."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.facts.scores import encode_scores
from benchmarks.gate.evidence import REQUIRED, comparison_problem, damage
from benchmarks.gate.history import read_history
from benchmarks.gate.rules import control_is_off, noise, rules
from compression.errors import CompressionError
from tests.support.places import REFERENCES

DAMAGES: list[Any] = [
    None, True, -1, 0, 10**400, 1e308, float("nan"), float("-inf"), "", "text", [], [[[]]], {"a": [{}]},
]  # fmt: skip


SCORED: dict[str, Any] = {
    "metric": "score", "technique": "baseline", "score": 0.5, "score_name": "mean IoU",
    "score_unit": "%", "higher_is_better": True, "score_error": 0.1, "total": 3,
    "scores": encode_scores(torch.tensor([0.25, 0.5, 0.75])),
}  # fmt: skip


@pytest.mark.parametrize("name", ["digits-cpu.json", "cifar10-cpu.json"])
def test_a_recorded_run_is_equal_to_itself(name: str) -> None:
    history = read_history(REFERENCES / name)
    gated = rules(same_weights=True)
    for entry in history.entries.values():
        facts = entry["extra_info"]
        assert comparison_problem(facts, facts) is None, entry["fullname"]
        assert noise(facts) is None
        assert not control_is_off(facts)
        if facts["metric"] in gated:
            assert gated[facts["metric"]](facts, facts) is None


def one_of_each() -> list[dict[str, Any]]:
    saved = json.loads((REFERENCES / "digits-cpu.json").read_text())["benchmarks"]
    scored = copy.deepcopy(next(e for e in saved if e["extra_info"]["metric"] == "accuracy"))
    scored["extra_info"] = SCORED
    saved.append(scored)
    return [
        next(e for e in saved if e["extra_info"]["metric"] == metric)
        for metric in ("cost", *REQUIRED)
    ]


def damages_of(entry: dict[str, Any], part: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entry with each field of a part damaged in each way, and with the field left out."""
    for field in entry[part]:
        for value in DAMAGES:
            worse = copy.deepcopy(entry)
            worse[part][field] = value
            yield field, worse
        worse = copy.deepcopy(entry)
        del worse[part][field]
        yield field, worse


@pytest.mark.parametrize("entry", one_of_each(), ids=lambda e: e["extra_info"]["metric"])
def test_whatever_is_damaged_in_the_stats_ends_in_no_traceback(
    entry: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "history.json"
    refused: dict[str, str] = {}
    for field, worse in damages_of(entry, "stats"):
        path.write_text(json.dumps({"benchmarks": [worse]}))
        try:
            read_history(path)
        except CompressionError as error:
            refused[field] = str(error)
    needed = {"min", "mean", "median", "max", "ops", "rounds", "stddev", "iqr", "outliers"}
    assert needed <= refused.keys()
    assert all(entry["fullname"] in said and len(said) < 400 for said in refused.values())


@pytest.mark.parametrize("entry", one_of_each(), ids=lambda e: e["extra_info"]["metric"])
def test_whatever_is_damaged_in_the_facts_ends_in_no_traceback(entry: dict[str, Any]) -> None:
    facts = entry["extra_info"]
    metric, gated = facts["metric"], rules(same_weights=True)
    refused = set()
    for field, worse in damages_of(entry, "extra_info"):
        then = worse["extra_info"]
        for sides in ((facts, then), (then, facts)):
            if comparison_problem(*sides):
                refused.add(field)
                continue
            noise(then)
            control_is_off(then)
            if metric in gated and field != "metric":
                gated[metric](*sides)
    assert refused >= {*REQUIRED.get(metric, ())}
    if metric in REQUIRED:
        assert "metric" in refused


def test_what_is_said_of_a_huge_number_is_short() -> None:
    said = damage({"metric": "size", "stored_bytes": 10**4000})
    assert said is not None
    assert len(said) < 80
