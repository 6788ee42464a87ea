"""Other tasks through the whole suite: segmentation, signals, numbers; and what is wrong in one."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.artifact import compress
from benchmarks.baseline import Baseline, Data, check_outputs, obtain_baseline
from benchmarks.baseline.fingerprints import value_fingerprint
from benchmarks.baseline.judged import beside_baseline, judged
from benchmarks.facts.scores import decode_scores, encode_scores
from benchmarks.gate.changes import changes
from benchmarks.gate.history import read_history
from benchmarks.repairs import lesson
from benchmarks.techniques import BY_NAME
from benchmarks.workloads import Workload
from compression.distillation import HINTON, MeanSquared
from compression.errors import CompressionError
from compression.storage import load_checkpoint
from compression.training import MEAN_IOU, Metric
from tests.support.runs import keep_library, run_pytest
from tests.support.tasks import LOUDNESS, SIGNALS, tone_loss
from tests.support.workloads import CPU, TINY

ROWS = "size or accuracy or (latency and static-int8 and batch1)"
ONLY = "accuracy and (baseline or static-int8)"
NAMES = {"SHAPES": "mean IoU %", "SIGNALS": "F1 %"}
LEAST = {"SHAPES": 0.65, "SIGNALS": 0.95}


def run(folder: Path, name: str, *options: str, status: int = 0) -> str:
    always = ["--workload", f"tests.support.tasks:{name}", "--num-threads", "1"]
    done = run_pytest(
        "benchmarks", "-q", "-p", "no:cacheprovider", *always, *options, XDG_CACHE_HOME=str(folder)
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def entries(path: Path) -> dict[str, dict[str, Any]]:
    saved = json.loads(path.read_text())["benchmarks"]
    return {e["extra_info"]["technique"]: e["extra_info"] for e in saved
            if e["extra_info"]["metric"] == "score"}  # fmt: skip


def better_then(path: Path) -> Path:
    """Return a saved run whose INT8 row was better on every example."""
    saved = json.loads(path.read_text())
    for entry in saved["benchmarks"]:
        facts = entry["extra_info"]
        if facts["metric"] == "score" and facts["technique"] == "static-int8":
            values = decode_scores(facts["scores"], facts["total"]) + 0.05
            facts |= {"scores": encode_scores(values), "score": float(values.mean())}
    other = path.with_name("better.json")
    other.write_text(json.dumps(saved))
    return other


@pytest.mark.parametrize("name", NAMES)
def test_another_task_is_compressed_measured_and_gated(name: str, tmp_path: Path) -> None:
    saved, report = tmp_path / "run.json", tmp_path / "report"
    told = run(
        tmp_path, name, "-k", ROWS, f"--benchmark-json={saved}", f"--report={report}",
        f"--figures={tmp_path / 'figures'}", "--budget", "drop=5pt score=60%",
    )  # fmt: skip
    table = told.partition("= compression: ")[2]
    head = next(line for line in table.splitlines() if line.startswith("technique "))
    assert re.split(r"  +", head)[2:4] == [NAMES[name], "drop pt"]
    assert "acc %" not in told
    assert re.search(r"^static-int8 .* \d+\.\d+ ±", table, re.MULTILINE), "a time"
    assert "best: " in told.partition("- budget: drop=5pt score=60% -")[2]
    rows = entries(saved)
    base = rows["baseline"]["score"]
    assert base > LEAST[name], told
    for row in (
        "static-int8",
        "int8-qat-taught",
        "l1-unstructured-60-tuned",
        "l1-unstructured-60-taught",
    ):
        assert rows[row]["score_lost"] < 0.1, (row, told)
    assert rows["distilled"]["score"] > 0.55, "of a smaller network"
    assert len(rows["distilled"]["epoch_scores"]) == {"SHAPES": 8, "SIGNALS": 6}[name]
    page = (report / "report.html").read_text()
    title = NAMES[name].replace(" %", ", %")
    assert f"test {title}" in page
    assert "accuracy, %" not in page
    assert f"{title} (95%)" in (report / "summary.md").read_text()
    if name == "SHAPES":
        gated(tmp_path, name, saved)
    now, then = (read_history(path) for path in (saved, better_then(saved)))
    assert not changes(now.facts, now.suite, now).regressions
    assert not changes(then.facts, now.suite, now).regressions, "a better one"
    (worse,) = changes(now.facts, now.suite, then).regressions
    assert "static-int8" in worse


def gated(folder: Path, name: str, saved: Path) -> None:
    """Run the gate against an equal run, and against one that was better."""
    compare = ["-k", ONLY, "--benchmark-compare-fail=min:1000000%"]
    same = run(folder, name, *compare, f"--benchmark-compare={saved}")
    assert "2 of 13 compared, 0 regressions, 0 not usable" in same
    assert NAMES[name] in same.partition("then and now")[2]
    worse = run(folder, name, *compare, f"--benchmark-compare={better_then(saved)}", status=1)
    said = NAMES[name].removesuffix(" %")
    assert re.search(rf"FAILED: .*static-int8\]: {said} \d+.\d\d% -> .* \(paired, p = ", worse)
    assert "1 regressions, 0 not usable" in worse


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    keep_library(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def baseline_of(workload: Workload) -> Baseline:
    data = workload.data(None)
    check_outputs(workload, data)
    model = obtain_baseline(workload, data, CPU, load=load_checkpoint)
    return Baseline(model, data, workload, CPU)


def test_an_error_is_better_lower_and_numbers_are_taught_by_numbers(cache: Path) -> None:
    b = baseline_of(LOUDNESS)
    assert lesson(b) == MeanSquared()
    base = judged(b.model, b.data.test, LOUDNESS.metric)
    spread = b.data.test.labels.sub(b.data.test.labels.median()).abs().mean()
    assert base["score"] < 0.5 * spread
    for name in ("distilled", "int8-qat-taught", "l1-unstructured-60-taught"):
        artifact = compress(BY_NAME[name], b, cache / f"{name}.safetensors")
        own = judged(artifact.load(CPU), b.data.test, LOUDNESS.metric)
        facts, lost = beside_baseline(own, base)
        assert lost == pytest.approx(own["score"] - base["score"])
        assert facts["score_name"] == "MAE"
        assert lost < 0.5 * spread, name
    with pytest.raises(CompressionError, match=r"Hinton\(\) compares probabilities of classes"):
        compress(BY_NAME["sweep-distilled-t4-a0.5"], b, cache / "refused")


def test_classes_are_taught_by_probabilities() -> None:
    assert lesson(Baseline(torch.nn.Identity(), TINY.data(None), TINY, CPU)) == HINTON


def with_nan(_: Path | None = None) -> Data:
    data = SIGNALS.data(None)
    data.test.labels[5, 1] = torch.nan
    return data


def of_two(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def nothing(outputs: Tensor, *_: Any) -> Tensor:
    return outputs.mean(0) * torch.nan


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "NaN of a metric": ({"metric": Metric("m", lambda o, _: o.mean(1) * torch.nan)},
                        "its network: metric m: expected finite numbers, found nan for example 0"),
    "another shape": ({"metric": Metric("m", lambda o, t: o - t)},
                      r"its network: metric m: expected one value per example, a tensor \(4,\)"),
    "a metric that raises": ({"metric": Metric("m", lambda o, _: o["out"])},
                             "its network: metric m fails on targets .*IndexError|TypeError"),
    "a metric of another task": ({"metric": MEAN_IOU}, "metric mean IoU: expected logits"),
    "targets of NaN": ({"data": with_nan}, "test targets, found NaN in 1 of 200, .* example 5"),
    "a loss of two": ({"loss": of_two}, "its network: .*of_two.* takes 2 positional arguments"),
    "a loss of many": ({"loss": nothing}, r"its network: the loss must be one number .* \(3,\)"),
    "cross-entropy": ({"loss": None, "metric": Metric("m", lambda o, _: o[:, 0]),
                       "data": LOUDNESS.data}, "its network: .* RuntimeError: 0D or 1D target"),
    "a student": ({"student": LOUDNESS.student}, "its student: metric F1"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_in_a_task_is_said_before_anything_is_trained(case: str, cache: Path) -> None:
    changes, message = BAD[case]
    with pytest.raises(CompressionError, match=f"workload signals: .*({message})"):
        baseline_of(replace(SIGNALS, **changes))
    assert not list(cache.rglob("*.safetensors"))
    assert not list(cache.rglob("*.resume"))


def test_a_fingerprint_knows_the_loss_and_nothing_of_it_where_there_is_none() -> None:
    fingerprint = replace(SIGNALS, loss=None).recipe_fingerprint()
    assert fingerprint != SIGNALS.recipe_fingerprint()
    assert fingerprint == replace(SIGNALS, loss=None, metric=MEAN_IOU).recipe_fingerprint()
    assert SIGNALS.loss is tone_loss


def test_what_is_kept_of_a_training_knows_its_loss_and_its_lesson() -> None:
    options = [{"loss": loss, "distillation": lesson} for loss in (tone_loss, of_two)
               for lesson in (HINTON, MeanSquared())]  # fmt: skip
    assert len({value_fingerprint(option) for option in options}) == 4
    plain = {"distillation": HINTON}
    assert value_fingerprint(plain) == repr(plain), "that of what was kept before"
