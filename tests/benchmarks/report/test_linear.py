"""The tables of layers on codes."""

from typing import Any

from benchmarks.report.linear import embedding, linear


def fact(kind: str, rows: int, speed_up: float, name: str = "linear") -> dict[str, Any]:
    interval = {"speed_up_low": speed_up - 0.1, "speed_up_high": speed_up + 0.1}
    found = {"technique": f"{name}-768x3072-{kind}", "batch_size": rows, "speed_up": speed_up}
    return {**found, **interval, "baseline_latency_ms": 0.335}


def test_a_size_has_a_line_per_number_of_rows() -> None:
    text = linear([fact("int8", 1, 3.0), fact("int4", 1, 4.0), fact("dynamic", 8, 5.5)])
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[0][3:] == ["8 bits (95%)", "4 bits (95%)", "dynamic INT8 (95%)"]
    assert lines[2] == ["768x3072", "1", "335.0", "3.00 (2.90-3.10)", "4.00 (3.90-4.10)", "-"]
    assert lines[3] == ["768x3072", "8", "335.0", "-", "-", "5.50 (5.40-5.60)"]


def test_embeddings_have_no_dynamic_form() -> None:
    text = embedding([fact(kind, 32, 1.5, "embedding") for kind in ("int8", "int4")])
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    assert lines[0] == ["rows x columns", "texts", "float32, us", "8 bits (95%)", "4 bits (95%)"]
    assert lines[2] == ["768x3072", "32", "335.0", *["1.50 (1.40-1.60)"] * 2]
