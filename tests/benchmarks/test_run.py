"""The whole suite on a workload of one's own: table, JSON, figures, gate, and workers."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parameters import measured
from benchmarks.techniques import BY_NAME, TECHNIQUES
from benchmarks.workloads import DIGITS, DIGITS_QUICK
from tests.support.runs import run_pytest

ROWS = "baseline or l1-global-60 or static-int8 or cpu-float16"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def history(cache: Path) -> tuple[Path, str]:
    """Return the JSON of a run and what it printed."""
    path = cache / "run.json"
    options = [f"--benchmark-json={path}", "--figures", str(cache / "figures")]
    return path, suite(cache, "-k", ROWS, *options, "--budget", "file=1GiB latency@4=1us drop=99pt")


def suite(cache: Path, *options: str) -> str:
    always = ["--workload", "tests.support.workloads:TINY", "--num-threads", "1"]
    run = run_pytest(
        "benchmarks", "-p", "no:cacheprovider", *always, *options, XDG_CACHE_HOME=str(cache)
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_run_ends_with_a_line_a_technique_and_no_other_table(history: tuple[Path, str]) -> None:
    lines = history[1].partition("compression: tiny (noise)")[2].splitlines()
    saved = json.loads(history[0].read_text())["benchmarks"]
    facts = next(e["extra_info"] for e in saved if e["name"] == "test_accuracy[cpu-l1-global-60]")
    (row,) = [re.split(r"  +", line) for line in lines if line.startswith("l1-global-60 ")]
    assert row[2:4] == [f"{100 * facts['accuracy']:.2f}", f"{100 * facts['drop']:+.2f}"]
    (simulated,) = [line for line in lines if line.startswith("float16 ")]
    assert "simulated" in simulated
    assert "Name (time in" not in history[1]
    assert max(map(len, lines)) <= 100


def test_a_budget_is_judged_after_the_table(history: tuple[Path, str]) -> None:
    lines = history[1].partition("- budget: file=1GiB latency@4=1us drop=99pt -")[2].splitlines()
    assert lines[1] == "best: no row keeps to all of it"
    assert "out, latency@4 above 1us (4): baseline, l1-global-60, static-int8," in lines[2]
    assert lines[3] == "out, no latency, simulated (1): float16"


@pytest.mark.parametrize("option", ["-v", "--benchmark-sort=mean", "--benchmark-columns=min"])
def test_a_table_of_times_is_printed_where_it_is_asked_for(
    cache: Path, history: tuple[Path, str], option: str
) -> None:
    out = suite(cache, "-k", "test_cost and cpu-float16", option)
    assert "Name (time in" in out
    assert ("% base" in out) == (option == "-v"), "which prints all blocks of the other table too"


def test_the_json_says_what_its_numbers_depend_on(history: tuple[Path, str]) -> None:
    saved: dict[str, Any] = json.loads(history[0].read_text())
    suite_facts = saved["machine_info"]["suite"]
    assert suite_facts["workload"] == "tiny"
    assert suite_facts["num_threads"] == 1
    assert suite_facts["seed"] == 0
    for entry in saved["benchmarks"]:
        facts = entry["extra_info"]
        if facts["metric"] == "accuracy":
            assert facts["total"] == 16
        if facts["metric"] == "latency":
            assert facts["speed_up_low"] <= facts["speed_up"] <= facts["speed_up_high"]
            assert entry["stats"]["rounds"] == facts["pairs"]


def test_figures_are_written_or_say_what_they_need(history: tuple[Path, str]) -> None:
    written = sorted(p.name for p in (history[0].parent / "figures").iterdir())
    assert written == ["pareto-size-accuracy.png", "pareto-size-accuracy.svg"]
    assert "no figure: figure2-pruning needs the pruning sweep: add -m sweep" in history[1]


def test_the_same_commit_passes_its_own_gate(cache: Path, history: tuple[Path, str]) -> None:
    # Size and accuracy: the times of a network this small would gate the machine, not the code.
    out = suite(
        cache,
        "-k",
        f"(size or accuracy) and ({ROWS})",
        f"--benchmark-compare={history[0]}",
        "--benchmark-compare-fail=min:1000000%",
    )
    below = out.partition(f"- then and now: {history[0]} -")[2]
    table, _, verdict = below.partition(f"- gate: {history[0]} -")
    row = next(line.split() for line in table.splitlines() if line.startswith("static-int8 "))
    assert row[1] == row[2] != "-", "bytes"
    assert row[3] == row[4] != "-", "accuracy"
    lines = [line for line in verdict.splitlines()[1:] if line]
    assert lines[-2].startswith("gate: 10 of ")
    assert lines[-2].endswith(" compared, 0 regressions, 0 not usable")
    assert "10 passed" in lines[-1]
    assert out.count("regressions") == 1
    assert "Name (time in" not in out, "the plugin's comparison of seconds"


def test_another_workload_is_compared_with_nothing(cache: Path, history: tuple[Path, str]) -> None:
    path = cache / "other.json"
    path.write_text(history[0].read_text().replace('"workload": "tiny"', '"workload": "large"'))
    out = suite(cache, "-k", "test_cost and cpu-float16", f"--benchmark-compare={path}")
    assert "nothing is compared: it is of large (noise)" in out
    assert "now" not in out.partition("then and now")[2].partition("nothing is compared")[2]


def test_workers_share_the_rows(cache: Path, history: tuple[Path, str]) -> None:
    compare = f"--benchmark-compare={history[0]}"
    out = suite(cache, "-n", "2", "-v", "-k", f"(accuracy or size) and ({ROWS})", compare)
    rows = [
        line
        for line in out.partition("- then and now: ")[0].splitlines()
        if line.startswith(("baseline ", "l1-g", "static-", "float16"))
    ]
    assert len(rows) == 10, "five of quality, five of files"
    ran = re.findall(r"^\[(gw\d)\] .* \w+ benchmarks/test_(\w+)\.py::.*\[(.*)\]", out, re.MULTILINE)
    assert len(ran) == 10
    by_row = {row: {worker for worker, _, other in ran if other == row} for _, _, row in ran}
    assert {len(workers) for workers in by_row.values()} == {1}, "each row is compressed once"
    assert "min left" not in out, "the baseline comes from the cache"
    assert re.search(r"^technique +bytes +now +acc % +now$", out, re.MULTILINE), "compared, too"
    assert "automatically disabled" not in out


def test_a_workload_leaves_out_the_rows_that_tell_nothing_on_it() -> None:
    options = "-p no:cacheprovider --collect-only -q -k distilled"
    for workload, rows in {"digits": 1, "cifar10": 2}.items():
        run = run_pytest("benchmarks/test_size.py", *options.split(), "--workload", workload)
        found = [line for line in run.stdout.splitlines() if "::test_size[cpu-distilled" in line]
        assert len(found) == rows, run.stdout


def test_a_quick_look_has_few_rows_and_another_workload() -> None:
    options = ["-p", "no:cacheprovider", "--collect-only", "-q", "--quick"]
    run = run_pytest("benchmarks/test_size.py", *options)
    found = re.findall(r"::test_size\[cpu-(.+)\]", run.stdout)
    assert sorted(found) == sorted(DIGITS_QUICK.rows)
    assert {"baseline", "static-int8"} < set(found) < set(BY_NAME)
    assert DIGITS_QUICK.name != DIGITS.name, "by which the gate compares neither with the other"
    assert not any(technique.target(DIGITS_QUICK.name).size for technique in TECHNIQUES)


def test_an_unknown_row_of_a_workload_is_named() -> None:
    workload = replace(DIGITS_QUICK, rows=("baseline", "l2-global"))
    with pytest.raises(pytest.fail.Exception, match=r"expected rows of .*, found l2-global"):
        [*measured(workload, "cpu")]


NO_CARD = """
import torch

torch.cuda.is_available = lambda: True
torch.cuda.get_device_name = lambda *_: "Made-up H0"
torch.cuda.get_device_capability = lambda *_: (9, 0)
"""


def test_a_gpu_has_its_own_batches_and_timings_and_its_name_in_the_header(tmp_path: Path) -> None:
    (tmp_path / "no_card.py").write_text(NO_CARD)
    options = "-p no:cacheprovider -p no_card --collect-only --device cpu --device cuda -k student"
    run = run_pytest("benchmarks/test_latency.py", *options.split(), PYTHONPATH=str(tmp_path))
    assert "device cpu, cuda (Made-up H0, TF32 on for convolutions and off" in run.stdout, (
        run.stderr
    )
    ids = [line.split("[")[1].rstrip("]>") for line in run.stdout.splitlines() if "[cuda-" in line]
    timings = ("", "-event", "-graph")
    batches = [f"batch{batch}{timing}" for batch in (1, 128, 1024) for timing in timings]
    assert ids == [f"cuda-student-{end}" for end in batches]
    assert run.stdout.count("[cpu-student-batch") == 2
