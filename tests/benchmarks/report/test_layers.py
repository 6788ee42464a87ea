"""The table of a GPU's layers."""

from benchmarks.report.layers import layers


def fact(batch_size: int, ms: float) -> dict[str, object]:
    layer = {"name": "conv1", "ms": ms, "times_floor": 8.53, "tile": [128, 64, 32, 1, 4, 5]}
    return {"batch_size": batch_size, "layers": [layer, {**layer, "name": "fc", "ms": 0.001}]}


def test_a_line_has_each_batch_of_a_layer_and_the_last_one_their_sums() -> None:
    lines = layers([fact(128, 0.3458), fact(1, 0.0064)]).splitlines()
    assert "| 1 at once, us | x floor | 128 at once, us |" in lines[0]
    assert lines[2] == "| `conv1` | 6.40 | 8.5 | 346 | 8.5 | 128 64 32 1 4 5 |"
    assert lines[-1].startswith("| all | 7.40 |  | 347 |")
