"""The table of a run: every technique has its row, and what no cell has room for a sentence."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.brief import brief
from benchmarks.report.figures import write_figures
from benchmarks.report.rows import rows
from benchmarks.report.table import render, render_markdown
from benchmarks.techniques import SWEEP, TECHNIQUES, Technique
from compression.errors import CompressionError
from tests.support.made_up import BASE_MS, TIMINGS, default_run

CONTENTS = {"values": 43_990_000, "index": 2048, "codebook": 512, "metadata": 7440}


def common(technique: Technique, device: str = "cpu") -> dict[str, Any]:
    return {
        "technique": technique.name,
        "family": technique.family or technique.name,
        "device": device,
        "workload": "digits",
        "data": "digits",
        "simulated": technique.claim_on(device).kind == "simulated",
        "size_only": technique.claim_on(device).kind == "size only",
        "target_met": True,
        **technique.facts,
    }


def accuracy_facts(i: int) -> dict[str, Any]:
    return {
        "metric": "accuracy",
        "accuracy": 0.95 - i / 500,
        "baseline_accuracy": 0.95,
        "baseline_stored_bytes": 44_000_000,
        "drop": i / 500,
        "total": 1000,
        "epoch_accuracy": [0.5, 0.7, 0.8],
    }


def facts(
    device: str = "cpu", techniques: tuple[Technique, ...] = TECHNIQUES
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for i, technique in enumerate(techniques):
        base = common(technique, device)
        size: dict[str, Any] = {"stored_bytes": max(10**6, 44_000_000 - 1_500_000 * i)}
        size |= {"baseline_stored_bytes": 44_000_000, "contents": CONTENTS}
        counts = {"parameters": 11_181_642, "nonzeros": 4_500_000, "macs": 37_016_576}
        found.append({**base, "metric": "size", **size, **counts})
        found.append({**base, **accuracy_facts(i), "stored_bytes": size["stored_bytes"]})
        found.append({**base, "metric": "cost", "seconds": 1.25})
        if not base["simulated"]:
            for batch in (1, 64):
                speed = {"speed_up": 1.5, "speed_up_low": 1.25, "speed_up_high": 1.75}
                latency = {"batch_size": batch, "timing": "wall", "latency_ms": 7.125, **speed}
                found.append({**base, "metric": "latency", **latency})
    return found


def test_every_technique_has_its_row_and_no_line_is_too_wide() -> None:
    text = render(rows(facts()))
    assert all(len(line) <= 100 for line in text.splitlines())
    for technique in TECHNIQUES:
        # quality, what the file is made of, speed
        assert sum(line.split()[:1] == [technique.name] for line in text.splitlines()) == 3, (
            technique
        )
    first = next(line for line in text.splitlines() if line.startswith("baseline"))
    assert first.split()[1:5] == ["41.96", "100.0", "95.00", "+0.00"]
    assert "1.50 (1.25-1.75)" in text
    assert "values KiB  index KiB  codebook KiB  metadata KiB" in text
    assert "42,959.0        2.0           0.5           7.3" in text


@pytest.mark.parametrize(
    ("count", "cell"),
    [(382_083, "0.36"), (104_858, "0.10"), (104_857, "102.4 KiB"), (5_272, "5.1 KiB"), (None, "-")],
)
def test_a_small_file_is_told_in_kibibytes(count: int | None, cell: str) -> None:
    known = facts(techniques=TECHNIQUES[:1])
    one = [f for f in known if f["metric"] == "size"]
    fact = {k: v for k, v in one[0].items() if k != "contents"} | {"stored_bytes": count}
    if count is None:
        fact = known[-1]
    for text in (render(rows([fact])), brief(rows([fact]))):
        assert re.split(r"  +", text.splitlines()[2])[1] == cell


def test_a_simulated_row_claims_no_latency() -> None:
    lines = [x for x in render(rows(facts())).splitlines() if x.startswith("float16 ")]
    assert "simulated" in lines[2]
    assert "1.50" not in lines[2]


def test_a_row_that_no_kernel_gains_by_says_size_only() -> None:
    lines = [x for x in render(rows(facts())).splitlines() if x.startswith("2-of-4 ")]
    assert lines[2].split()[1:] == ["size", "only", "-"] * 2
    text = render(rows(facts("cuda", [c for c in TECHNIQUES if c.name == "2-of-4"])))
    assert text.endswith("2-of-4: size only on a GPU, no latency to claim")


def test_missing_facts_are_dashes_and_a_missed_target_shows() -> None:
    fact = {**common(TECHNIQUES[0]), "metric": "cost", "seconds": 2.0, "target_met": False}
    line = render(rows([fact])).splitlines()[-1]
    assert line.split() == ["baseline", *["-"] * 7, "2.0", "NO"]


def test_layers_left_in_float_are_counted_below_the_table() -> None:
    dynamic = next(technique for technique in TECHNIQUES if technique.name == "dynamic-int8")
    fact = facts(techniques=(dynamic,))[0] | {"in_float": ["conv1", "fc"]}
    assert render(rows([fact, fact])).splitlines()[-1] == (
        "dynamic-int8: layers that stay in float: 2 (conv1, fc)"
    )


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({"emb": "an embedding", "head": "computed"}, "2 (emb, head)"),
        (["d", "c", "b", "a"], "4 (a, b, c, ...)"),
        (3, "3"),
    ],
)
def test_what_a_technique_left_out_is_counted_below_the_table(left_out: Any, said: str) -> None:
    known = facts(techniques=TECHNIQUES[:2])
    assert "left out" not in render(rows(known))
    recorded = [fact | {"left_out": left_out} for fact in known]
    assert (
        render(rows(recorded)).splitlines()[-1] == f"{TECHNIQUES[1].name}: layers left out: {said}"
    )


def test_a_busy_machine_s_times_are_said_below_the_table() -> None:
    noisy = [fact | {"noisy": True, "preempted": 40} for fact in facts(techniques=TECHNIQUES[:1])]
    assert render(rows(noisy)).splitlines()[-1] == (
        "baseline: times of a busy machine, no evidence: batch 1 and 64"
    )


def test_two_devices_are_told_apart_and_sweeps_left_out() -> None:
    both = [*facts("cpu", TECHNIQUES[:2]), *facts("cuda", TECHNIQUES[:2]), *facts("cpu", SWEEP[:3])]
    text = render(rows(both))
    assert "cuda baseline" in text
    assert "sweep" not in text
    assert render_markdown(rows(both)).count("| cpu ") == 6  # three tables of two rows


def block(text: str, head: str) -> dict[str, list[str]]:
    """Return the cells of the block whose names are headed so, by name."""
    found = next(part for part in text.split("\n\n") if part.startswith(head))
    return {line.split()[0]: line.split()[1:] for line in found.splitlines()[2:]}


def test_a_gpu_has_a_block_for_each_timing_with_its_batches_side_by_side() -> None:
    long = [f | {"technique": "l1-unstructured-60-recalibrated"} for f in default_run("cuda")[4:10]]
    text = render(rows([*default_run("cuda"), *long]))
    assert max(len(line) for line in text.splitlines()) <= 100
    for i, timing in enumerate(TIMINGS["cuda"]):
        base = block(text, f"technique (cuda {timing}, by batch)")["baseline"]
        times = [ms / 1.3**i for _, ms in BASE_MS["cuda"]]
        assert [float(cell) for cell in base[::3]] == pytest.approx(times, rel=0.005)
        assert base[1:3] == ["1.00", "±0.03"], "the farther end of 0.98 to 1.03"
    assert text.count(" 128 ms ") == 3


def test_a_gpus_memory_and_energy_stand_where_they_are_known() -> None:
    text = render(rows(default_run("cuda")))
    costs = block(text, "technique (cuda, by batch)")
    assert costs["baseline"] == ["62", "44.0", "334", "171", "26.4", "1070", "24.3"]
    assert costs["float16"] == ["-"] * 7
    silent = [
        {k: v for k, v in f.items() if not k.startswith(("energy", "cuda_kernels"))}
        for f in default_run("cuda")
    ]
    head = "technique (cuda, by batch)"
    assert block(render(rows(silent)), head)["baseline"] == ["44.0", "171", "1070"]
    assert head not in render(rows([f for f in default_run("cuda") if f["metric"] != "latency"]))


def test_a_simulated_row_of_a_gpu_has_a_sentence_and_no_time() -> None:
    text = render(rows(default_run("cuda")))
    assert block(text, "technique (cuda graph")["float16"] == ["-"] * 6
    assert text.splitlines()[-1] == "float16: simulated on a GPU, no latency to claim"


def test_each_of_two_devices_has_its_own_speed() -> None:
    text = render(rows([*default_run("cuda"), *default_run("cpu")]))
    assert block(text, "technique (cuda wall")["baseline"][0] == "1.42"
    lines = text.splitlines()
    assert any(line.startswith("cpu baseline ") and "14.3" in line for line in lines)
    assert not any("batch 1024 ms" in line for line in lines)


def test_figures_are_written_and_the_same_again(tmp_path: Path) -> None:
    everything = facts(techniques=(*TECHNIQUES, *SWEEP))
    written, missing = write_figures(everything, tmp_path)
    assert missing == []
    assert sorted(p.name for p in written) == sorted(
        f"{name}.{ending}"
        for name in (
            "figure2-pruning",
            "figure6-distillation",
            "pareto-size-accuracy",
            "size-curve",
            "macs-accuracy",
        )
        for ending in ("svg", "png")
    )
    before = {path: path.read_bytes() for path in written}
    write_figures(everything, tmp_path)
    assert all(path.read_bytes() == data for path, data in before.items())
    svg = (tmp_path / "figure2-pruning.svg").read_text()
    assert "fine-tuned" in svg or "<path" in svg


def test_a_figure_without_its_facts_is_said(tmp_path: Path) -> None:
    written, missing = write_figures(facts(), tmp_path)
    assert {p.stem for p in written} == {"pareto-size-accuracy"}
    assert len(missing) == 4
    assert all("-m sweep" in reason for reason in missing)


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CompressionError, match="in the folder's place"):
        write_figures(facts(), tmp_path / "file")
