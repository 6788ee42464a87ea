"""Which tests stay together on one worker."""

import pytest

from benchmarks.workers import group_of

GROUPS = {
    "benchmarks/test_size.py::test_size[cpu-static-int8]": "cpu-static-int8",
    "benchmarks/test_latency.py::test_latency[cpu-static-int8-batch64]": "cpu-static-int8",
    "benchmarks/test_latency.py::test_latency[cuda-2-of-4-batch1-event]": "cuda-2-of-4",
    "benchmarks/test_accuracy.py::test_accuracy[cpu-sweep-distilled-t0.01-a0.5]": (
        "cpu-sweep-distilled-t0.01-a0.5"
    ),
    "benchmarks/test_peers.py::test_engine[openvino-int8]": "benchmarks/test_peers.py",
    "tests/benchmarks/test_run.py::test_figures[cpu-x]": "tests/benchmarks/test_run.py",
}


@pytest.mark.parametrize("node_id", GROUPS)
def test_a_techniques_tests_and_a_files_stay_together(node_id: str) -> None:
    assert group_of(node_id) == GROUPS[node_id]
