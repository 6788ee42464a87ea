"""Another metric than accuracy stands with its own name, unit and direction wherever results do."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.brief import brief
from benchmarks.report.budget import choose, parse_budget
from benchmarks.report.changes import changes
from benchmarks.report.figures import write_figures
from benchmarks.report.page.page import page
from benchmarks.report.page.points import front, points_of
from benchmarks.report.page.runs import Run, checked
from benchmarks.report.quality import ACCURACY, Quality, quality_of
from benchmarks.report.rows import rows
from benchmarks.report.summary import summary
from benchmarks.report.table import render
from compression.errors import CompressionError

ERROR = Quality("MAE", "mm", False)


def score(name: str, value: float, stored: int, **more: Any) -> dict[str, Any]:
    about = {"device": "cpu", "technique": name, "simulated": False, "workload": "w", "data": "d"}
    sizes = {"stored_bytes": stored, "baseline_stored_bytes": 2**20}
    own = {"score": value, "score_name": "MAE", "score_unit": "mm", "higher_is_better": False}
    lost = {"baseline_score": 2.0, "score_lost": value - 2.0, "score_error": 0.1, "total": 50}
    return {"metric": "score", **about, **sizes, **own, **lost, **more}


FACTS = [score("baseline", 2.0, 2**20), score("static-int8", 2.125, 2**18), score("shared", 9.5, 2**17),
         score("worse", 3.0, 2**19)]  # fmt: skip


def run_of(facts: list[dict[str, Any]], date: str = "2026-01-01T00:00") -> Run:
    known = {f"t[{f['technique']}]": checked("t", f) for f in facts}
    return Run(Path("run.json"), date, {}, {}, known)


def test_tables_say_the_metric_and_its_unit() -> None:
    lines = brief(rows(FACTS)).splitlines()
    assert lines[0].split("  ")[-3].strip() == "MAE mm" or "MAE mm  rise mm" in lines[0]
    assert lines[3].split()[-3:-1] == ["2.125", "+0.125"]
    assert "MAE mm  rise mm" in render(rows(FACTS))
    beside = changes(rows([score("baseline", 1.5, 2**20)]), rows(FACTS))
    assert "MAE mm" in beside
    assert "1.5" in beside
    other = changes(rows([score("baseline", 1.5, 2**20, score_unit="cm")]), rows(FACTS))
    assert "1.5" not in other, "another unit is not compared"


def test_a_budget_is_in_the_metric_s_unit() -> None:
    best = choose(FACTS, parse_budget("score=2.5mm file=300KiB", ERROR)).lines()
    assert best[0] == "best: static-int8: 256.0 KiB, rise +0.125 mm".replace(
        "256.0 KiB", "0.25 MiB"
    )
    assert any("score above 2.5mm" in line and "shared" in line for line in best)
    assert choose(FACTS, parse_budget("drop=0.5mm", ERROR)).fitting[0].name == "baseline"
    for wrong in ("drop=1pt", "accuracy=90%", "score=2"):
        with pytest.raises(CompressionError, match="expected"):
            parse_budget(wrong, ERROR)
    with pytest.raises(CompressionError, match="drop= or accuracy="):
        parse_budget("score=1")


def test_the_front_holds_what_errs_less() -> None:
    points = points_of(FACTS)
    assert [p.name for p in front(points, None)] == ["shared", "static-int8", "baseline"]
    assert str(points[0].accuracy) == "2 (1.804–2.196)"


def test_the_page_and_the_summary_call_it_by_its_name(tmp_path: Path) -> None:
    older = [score(f["technique"], f["score"] + 0.5, f["stored_bytes"]) for f in FACTS]
    runs = [run_of(older), run_of(FACTS, "2026-01-02T00:00")]
    text, short = page(runs), summary(runs, None)
    for said in ("test MAE, mm", "MAE, mm (95%)", "lost, mm", "at most ", " mm lost"):
        assert said in text, said
    assert "accuracy, %" not in text + short
    assert "-0.5 mm" in text, "of the history"
    assert "MAE, mm (95%)" in short
    written, _ = write_figures(FACTS, tmp_path)
    assert [p.name for p in written if p.suffix == ".svg"] == ["pareto-size-accuracy.svg"]
    assert "test MAE, mm" in written[0].read_text() or written[0].stat().st_size


def test_accuracy_is_what_it_was() -> None:
    assert quality_of([{}, {"correct": 1}]) == ACCURACY
    assert (ACCURACY.head, ACCURACY.lost_head, ACCURACY.title) == (
        "acc %",
        "drop pt",
        "accuracy, %",
    )
    assert (ERROR.worth(2), ERROR.lost_unit, ERROR.shown(2)) == (-2, "mm", 2)
