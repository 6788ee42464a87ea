"""What a network is worth by a metric: the facts of its answers, and a sentence of them."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.facts.record import encode_images
from benchmarks.facts.scores import encode_scores
from compression.training import TOP_1, AnySplit, Metric, scores


def judged(model: nn.Module, split: AnySplit, metric: Metric) -> dict[str, Any]:
    """Return the facts of a network's answers: which images are correct, or each example's score."""
    values = scores(model, split, metric)
    if metric == TOP_1:
        correct = {"correct": int(values.sum()), "total": len(values)}
        return {**correct, "correct_images": encode_images(values)}
    return {
        "score": score_of(values),
        "score_name": metric.name,
        "score_unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "score_error": _standard_error(values),
        "total": len(values),
        "scores": encode_scores(values),
    }


def beside_baseline(own: dict[str, Any], base: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Return the facts of a technique's answers beside those of the baseline, and what it lost."""
    if "correct" in own:
        accuracy, before = (f["correct"] / f["total"] for f in (own, base))
        shares = {"accuracy": accuracy, "baseline_accuracy": before, "drop": before - accuracy}
        facts = {key: own[key] for key in ("correct", "total", "correct_images")}
        return {"metric": "accuracy", **facts, **shares}, before - accuracy
    best, less = (base, own) if own["higher_is_better"] else (own, base)
    lost = best["score"] - less["score"]
    facts = {key: value for key, value in own.items() if key in SCORED}
    return {"metric": "score", **facts, "baseline_score": base["score"], "score_lost": lost}, lost


SCORED = (
    "score", "score_name", "score_unit", "higher_is_better", "score_error", "total", "scores",
)  # fmt: skip


def score_of(values: Tensor) -> float:
    """Return the mean of the values of all examples."""
    return float((values.float() if values.dtype == torch.bool else values).mean())


def said(metric: Metric, score: float) -> str:
    """Return a score as a line of progress says it.

    >>> said(TOP_1, 0.5), said(Metric("MAE", len, unit="mm", higher_is_better=False), 1.25)
    ('50.00%', 'MAE 1.25 mm')
    """
    number = f"{score:.2%}" if metric.unit == "%" else f"{score:.4g} {metric.unit}".strip()
    return number if metric == TOP_1 else f"{metric.name} {number}"


def _standard_error(values: Tensor) -> float:
    count = len(values)
    return float(values.double().std()) / math.sqrt(count) if count > 1 else 0.0
