"""Whatever a run's facts are, there is a page or one sentence: no other error, no broken HTML."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.report.page.page import page
from benchmarks.report.page.runs import Run, checked
from tests.support.made_up import default_run, pruning_sweep
from tests.support.saved import SUITE

FACTS = [*default_run()[:24], *default_run("cuda")[:12], *pruning_sweep()[:4]]
KEYS = sorted({key for fact in FACTS for key in fact} | {"contents", "in_float", "sweep", "pruned"})
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["wall", "cpu", "size", "accuracy", "latency", "training", "student"]),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["values", "index", "x"]), st.integers(0, 9), max_size=2),
)
DAMAGE = st.tuples(st.integers(0, len(FACTS) - 1), st.sampled_from(KEYS), VALUES)


@given(VALUES, VALUES, VALUES)
def test_what_a_run_says_of_its_machine_may_be_anything(cpu: Any, suite: Any, flags: Any) -> None:
    found = {f"{i}": checked(f"{i}", fact) for i, fact in enumerate(FACTS[:4])}
    for machine in (
        {"cpu": cpu, "suite": suite},
        {
            "cpu": {"flags": flags, "brand_raw": cpu},
            "suite": {"torch": suite, "num_threads": flags},
        },
    ):
        run = Run(Path("run"), "", machine, {"id": cpu, "dirty": suite}, found)
        assert "<article" in page([run])


@given(st.lists(DAMAGE, max_size=4), st.lists(st.integers(0, len(FACTS) - 1), max_size=30))
def test_there_is_a_page_or_a_sentence(
    damages: list[tuple[int, str, Any]], gone: list[int]
) -> None:
    facts = [dict(fact) for fact in FACTS]
    for i, key, value in damages:
        facts[i][key] = value
    kept = [fact for i, fact in enumerate(facts) if i not in gone]
    try:
        found = {f"{i}": checked(f"{i}", fact) for i, fact in enumerate(kept)}
    except ValueError:
        return
    runs = [Run(Path(f"{day}"), f"2026-01-0{day}", {"suite": SUITE}, {}, found) for day in (1, 2)]
    text = page(runs)
    assert text.count("<article") == text.count("</article>") >= 1
