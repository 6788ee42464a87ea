"""The gate on scores: recorded compactly, compared example by example, either way round."""

import base64
import zlib
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.baseline.judged import beside_baseline, judged, said
from benchmarks.facts.scores import HEAD, decode_scores, encode_scores
from benchmarks.gate.evidence import comparison_problem, damage
from benchmarks.gate.paired import chance_of_loss
from benchmarks.gate.rules import binomial_tail, score_change, score_regression
from compression.training import MEAN_ABSOLUTE_ERROR, TOP_1, Metric, Split

SPREAD = torch.rand(400, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3


def facts_of(values: Tensor, *, better_high: bool = True, unit: str = "%") -> dict[str, Any]:
    metric = Metric("worth", lambda outputs, _: outputs, unit, better_high)
    found = judged(torch.nn.Identity(), Split(values, values, prepare=lambda x: x), metric)
    return {"metric": "score", **found}


@pytest.mark.parametrize(
    "values", [SPREAD, SPREAD > 0.5, SPREAD * 0 + 3.5, -1e6 * SPREAD, SPREAD[:1]]
)
def test_a_record_gives_the_scores_back(values: Tensor) -> None:
    text = encode_scores(values)
    again, span = decode_scores(text, len(values)), float(values.max()) - float(values.min())
    assert (again - values.double()).abs().max() <= max(span, 1e-300) / 131_000
    if values.dtype == torch.bool:
        assert torch.equal(again.bool(), values)
        assert len(text) < len(encode_scores(values.float()))
    assert len(text) < 4 * len(values) + 60


def test_a_damaged_record_is_named() -> None:
    good = encode_scores(SPREAD)
    for bad in (
        None,
        "no base64",
        good[:-8],
        encode_scores(SPREAD[:9]),
        encode_scores(torch.rand(900)),
    ):
        with pytest.raises(ValueError, match="record of"):
            decode_scores(bad, 400)
    forged = base64.b64encode(zlib.compress(HEAD.pack(16, torch.nan, 1.0) + bytes(800))).decode()
    with pytest.raises(ValueError, match="found nan to 1"):
        decode_scores(forged, 400)
    facts = facts_of(SPREAD)
    assert damage(facts) is None
    assert "whose mean is" in str(damage(facts | {"score": 0.9}))
    assert "a scores that cannot be used" in str(damage(facts | {"total": 401}))
    assert "a higher_is_better of 2" in str(damage(facts | {"higher_is_better": 2}))
    assert "a score_name of 3" in str(damage(facts | {"score_name": 3}))


@pytest.mark.parametrize("better_high", [True, False])
@pytest.mark.parametrize("paired", [True, False])
def test_a_score_fails_beyond_chance_and_only_where_it_is_worse(
    better_high: bool, paired: bool
) -> None:
    sign = -1 if better_high else 1
    then = facts_of(SPREAD, better_high=better_high)
    worse, better = (facts_of(SPREAD + s * sign * 0.05, better_high=better_high) for s in (1, -1))
    noise = 0.05 * torch.randn(400, generator=torch.Generator().manual_seed(1))
    changed = facts_of(SPREAD + noise - noise.mean() + sign * 0.001, better_high=better_high)
    if not paired:
        for facts in (then, worse, better, changed):
            del facts["scores"]
    assert score_regression(then, then) is None
    assert score_regression(better, then) is None
    assert score_regression(changed, then) is None, "as many examples became better"
    said = str(score_regression(worse, then))
    assert said.startswith(score_change(worse, then)), "what it was, and is"
    assert ("paired, p = " if paired else "standard errors") in said


def test_rounding_that_all_goes_one_way_is_no_regression() -> None:
    then, now = facts_of(SPREAD), facts_of(SPREAD - 1e-6)
    assert chance_of_loss(torch.full((400,), 1e-6)) < 1e-4
    assert score_regression(now, then) is None


@pytest.mark.parametrize(("lost", "gained"), [(3, 0), (5, 0), (6, 0), (14, 4), (30, 12), (30, 25)])
def test_on_bits_the_test_is_mcnemar_s(lost: int, gained: int) -> None:
    differences = torch.cat([torch.ones(lost), -torch.ones(gained), torch.zeros(500)])
    assert chance_of_loss(differences) == pytest.approx(
        binomial_tail(lost, lost + gained), abs=0.01
    )


def test_the_level_is_kept_where_nothing_changed() -> None:
    made = torch.Generator().manual_seed(3)
    alarms = sum(chance_of_loss(torch.randn(30, generator=made) ** 3) < 0.025 for _ in range(200))
    assert alarms <= 12, "0.025 of 200, and what chance adds"


def test_scores_of_other_metrics_are_not_compared() -> None:
    then = facts_of(SPREAD)
    for other in ({"score_name": "F1"}, {"higher_is_better": False}, {"score_unit": "mm"}):
        assert "scores of other kinds" in str(comparison_problem(then | other, then))
    assert "total is 9" in str(comparison_problem(facts_of(SPREAD[:9]), then))
    assert "measures" in str(
        comparison_problem(then, {"metric": "accuracy", "correct": 1, "total": 2})
    )


def test_what_was_lost_is_above_0_where_it_is_worse() -> None:
    low, high = facts_of(SPREAD), facts_of(SPREAD + 0.1)
    assert beside_baseline(low, high)[1] == pytest.approx(0.1)
    low, high = (facts_of(x, better_high=False, unit="mm") for x in (SPREAD, SPREAD + 0.1))
    found, lost = beside_baseline(high, low)
    assert lost == found["score_lost"] == pytest.approx(0.1)
    assert found["metric"] == "score"
    assert score_change(high, low).endswith(" mm")
    assert said(MEAN_ABSOLUTE_ERROR, 2.0) == "MAE 2"
    assert said(TOP_1, 0.25) == "25.00%"
