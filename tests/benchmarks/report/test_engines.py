"""The table of torchvision's networks on several engines."""

from typing import Any

from benchmarks.report.engines import engine_times, engines


def fact(engine: str, batch_size: int, ms: float, **others: Any) -> dict[str, Any]:
    found = {"stayed": [], "integer_kernels": 0, "sqnr_db": 30.0, "latency_ms": ms, **others}
    return {"technique": f"vit_b_16-{engine}", "batch_size": batch_size, **found}


FACTS = [
    fact("torch-float32", 1, 8.0),
    fact("openvino-int8-nncf", 1, 3.0, sqnr_db=28.26),
    fact("onnxruntime-int8", 1, 6.0, sqnr_db=12.0),
    fact("compression-int8", 1, 2.0, stayed=["norm", "head"], integer_kernels=50),
    fact("torch-float32", 16, 90.0),
    fact("openvino-int8-nncf", 16, 30.0),
    fact("compression-int8", 16, 40.0),
]


def cells(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if not line.startswith("|-")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_network_has_a_line_of_what_each_engine_gives() -> None:
    head, line = cells(engines(FACTS))
    assert dict(zip(head, line, strict=True)) == {
        "network": "vit_b_16", "ours, dB": "30.0", "OpenVINO, dB": "28.3", "ORT, dB": "12.0",
        "layers in float": "2", "kernels": "50",
    }  # fmt: skip


def test_times_of_others_are_over_ours() -> None:
    head, line = cells(engine_times(FACTS))
    assert head[:5] == ["network", "1 at once, ms", "float32", "OpenVINO", "ORT"]
    assert line[:5] == ["vit_b_16", "2.00", "4.00", "1.50", "3.00"]


def test_an_engine_that_made_no_file_has_no_number() -> None:
    _, line = cells(engine_times(FACTS))
    assert line[5:] == ["40.0", "2.25", "0.75", "-"]


def test_a_network_without_ours_shows_the_others() -> None:
    others = [f for f in FACTS if "compression" not in f["technique"]]
    assert cells(engines(others))[1][1:] == ["-", "28.3", "12.0", "-", "-"]
    assert set(cells(engine_times(others))[1][1:]) == {"-"}
