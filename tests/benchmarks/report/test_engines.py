"""The table of torchvision's networks on several engines."""

from typing import Any

from benchmarks.report.engines import engines


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


def test_a_network_has_a_line_with_each_engine_over_ours() -> None:
    head, line = cells(engines(FACTS))
    assert dict(zip(head[:6], line[:6], strict=True)) == {
        "network": "vit_b_16", "ours, dB": "30.0", "OpenVINO, dB": "28.3", "ORT, dB": "12.0",
        "in float": "2", "kernels": "50",
    }  # fmt: skip
    assert head[6:10] == ["batch 1, ms", "x float32", "x OpenVINO", "x ORT"]
    assert line[6:10] == ["2.00", "4.00", "1.50", "3.00"]


def test_an_engine_that_made_no_file_has_no_number() -> None:
    _, line = cells(engines(FACTS))
    assert line[10:] == ["40.0", "2.25", "0.75", "-"]


def test_a_network_without_ours_shows_the_others() -> None:
    _, line = cells(engines([f for f in FACTS if "compression" not in f["technique"]]))
    assert line[1:6] == ["-", "28.3", "12.0", "-", "-"]
    assert set(line[6:]) == {"-"}
