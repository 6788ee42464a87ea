"""What is recorded is plain, finite, and of the type that FACTS says."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.facts.record import record


def fake_benchmark() -> Any:
    return SimpleNamespace(extra_info={})


def test_scalars_of_numpy_and_torch_are_recorded_as_plain_numbers(request) -> None:
    fake = fake_benchmark()
    facts = {
        "correct": np.int64(3),
        "drop": np.float64(0.5),
        "target_met": np.bool_(True),
        "accuracy": torch.tensor(0.25),
        "layers": ({"ms": np.float32(0.5), "tile": (1, None)},),
        "contents": {"values": torch.tensor(7)},
    }
    record(fake, request, **facts)
    plain = {
        "correct": 3,
        "drop": 0.5,
        "target_met": True,
        "accuracy": 0.25,
        "layers": [{"ms": 0.5, "tile": [1, None]}],
        "contents": {"values": 7},
    }
    assert fake.extra_info == plain
    # Exact types: xdist's transport knows no subclass of float.
    assert {type(value) for value in fake.extra_info.values()} == {int, float, bool, list, dict}
    assert ("facts", plain) in request.node.user_properties


@pytest.mark.parametrize(
    ("fact", "error", "text"),
    [
        (float("nan"), ValueError, "fact layers must be finite"),
        (np.float32("inf"), ValueError, "fact layers must be finite"),
        (
            {"a": [1.0, torch.tensor(float("nan"))]},
            ValueError,
            r"fact layers.a\[1\] must be finite",
        ),
        (torch.ones(2), TypeError, "fact layers must be plain JSON, found Tensor"),
        ([object()], TypeError, r"fact layers\[0\] must be plain JSON, found object"),
        ([1.0], TypeError, r"fact layers: expected list of object, found \[1.0\]"),
    ],
)
def test_a_fact_that_is_no_finite_json_is_refused(request, fact, error, text) -> None:
    fake = fake_benchmark()
    with pytest.raises(error, match=text):
        record(fake, request, correct=1, layers=fact)
    assert fake.extra_info == {}
    assert request.node.user_properties == []


@pytest.mark.parametrize(
    ("facts", "error", "text"),
    [
        ({"latency_mss": 1.0}, ValueError, "fact latency_mss is unknown: give it a row in"),
        ({"latency_ms": "1.0"}, TypeError, "fact latency_ms: expected number above 0, found '1.0'"),
        ({"latency_ms": 0}, TypeError, "fact latency_ms: expected number above 0, found 0"),
        ({"accuracy": 94.2}, TypeError, "fact accuracy: expected number from 0 to 1, found 94.2"),
        ({"correct": True}, TypeError, "fact correct: expected count, found True"),
        ({"stored_bytes": 9.5}, TypeError, "fact stored_bytes: expected count above 0, found 9.5"),
        ({"metric": "sise"}, TypeError, "fact metric: expected size or accuracy or .*found 'sise'"),
        ({"kernels": {"a": -1}}, TypeError, "fact kernels: expected count by name, found .'a': -1"),
        ({"total": None}, TypeError, "fact total: expected count above 0, found None"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_unknown_fact_and_one_of_another_type_are_refused(
    request: Any, facts: dict[str, Any], error: type[Exception], text: str
) -> None:
    fake = fake_benchmark()
    with pytest.raises(error, match=text):
        record(fake, request, **facts)
    assert fake.extra_info == {}


def test_null_is_a_value_only_where_the_schema_says_so(request: Any) -> None:
    fake = fake_benchmark()
    record(fake, request, target=None, target_met=None, peak_memory_bytes=None)
    assert fake.extra_info == {"target": None, "target_met": None, "peak_memory_bytes": None}
