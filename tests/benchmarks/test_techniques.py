"""Every technique, on a tiny network: the input stays, the file loads back."""

from pathlib import Path

import pytest
import torch

from benchmarks.baseline import Baseline, weights_fingerprint
from benchmarks.techniques import SWEEP, TECHNIQUES, Technique
from compression.pruning import sparsity
from compression.storage import load, save
from tests.support.nets import mlp, residual
from tests.support.workloads import WITH_STUDENT, tiny_data

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline(residual(), tiny_data(), WITH_STUDENT, CPU)


@pytest.mark.parametrize("technique", [*TECHNIQUES, SWEEP[1], *SWEEP[5:17:5], SWEEP[-1]], ids=str)
def test_a_technique_leaves_its_input_and_its_file_loads(
    technique: Technique, baseline: Baseline, tmp_path: Path
) -> None:
    before = weights_fingerprint(baseline.model)
    buffers = [t.clone() for t in baseline.model.buffers()]
    model = technique.how(baseline).eval()
    assert weights_fingerprint(baseline.model) == before
    assert all(torch.equal(a, b) for a, b in zip(buffers, baseline.model.buffers(), strict=True))
    assert not baseline.model.training
    inputs = baseline.data.validation.inputs(slice(0, 4))
    for entropy_coded in (False, True):
        stored = save(model, tmp_path / "model.safetensors", entropy_coded=entropy_coded)
        assert stored == (tmp_path / "model.safetensors").stat().st_size
        again = load(tmp_path / "model.safetensors", mlp if technique.student else residual)
        assert weights_fingerprint(again) == weights_fingerprint(model)
        with torch.no_grad():
            assert torch.equal(again(inputs), model(inputs))


def test_techniques_choose_by_training_images_only(
    baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other test images change no byte of any technique."""
    monkeypatch.setattr("benchmarks.kept._place", lambda *_: None)  # each is trained twice
    other = tiny_data()
    data = other.__class__(other.train, other.validation, other.train, title="leak")
    for technique in TECHNIQUES:
        models = [
            technique.how(Baseline(baseline.model, d, WITH_STUDENT, CPU))
            for d in (baseline.data, data)
        ]
        assert weights_fingerprint(models[0]) == weights_fingerprint(models[1]), technique


def test_names_are_unique_and_targets_name_workloads() -> None:
    names = [technique.name for technique in (*TECHNIQUES, *SWEEP)]
    assert len(names) == len(set(names))
    assert {w for technique in TECHNIQUES for w in technique.targets} == {"digits", "cifar10"}


def test_a_row_without_a_latency_promises_no_speed_up() -> None:
    for technique in TECHNIQUES:
        if any(claim.kind != "latency" for claim in technique.claims.values()):
            assert {t.speed_up for t in technique.targets.values()} == {None}, technique
        for claim in technique.claims.values():
            assert claim.kernels or claim.otherwise == "failure", f"{technique}: nothing to miss"


def test_fewer_multiply_accumulates_promise_no_speed_on_a_gpu() -> None:
    row = next(technique for technique in TECHNIQUES if technique.name == "channels-50-tuned")
    assert row.speed_up_on("cpu", "cifar10") == row.target("cifar10").speed_up == 1.3
    assert row.speed_up_on("cuda", "cifar10") == 0.9
    assert row.speed_up_on("cuda", "of one's own") is None


def test_the_sweep_is_that_of_the_papers_figures() -> None:
    amounts = {technique.facts["amount"] for technique in SWEEP if "amount" in technique.facts}
    assert sorted(amounts) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert 0.01 in {technique.facts.get("temperature") for technique in SWEEP}


def test_fine_tuned_rows_keep_their_zeros(baseline: Baseline) -> None:
    by_name = {technique.name: technique for technique in TECHNIQUES}
    for name in ("l1-unstructured-60", "random-unstructured-60"):
        plain, tuned = (by_name[n].how(baseline) for n in (name, f"{name}-tuned"))
        assert sparsity(plain) == sparsity(tuned) == pytest.approx(0.6, abs=0.01)
