"""Each rule is one-sided, and says in a sentence what it compared."""

import base64
import zlib

import pytest
import torch

from benchmarks.facts.record import decode_images, encode_images
from benchmarks.gate.evidence import comparison_problem
from benchmarks.gate.rules import (
    accuracy_regression,
    binomial_tail,
    size_regression,
    speed_up_regression,
)


def accuracy(correct: int, total: int = 1000, *, images: bool = True) -> dict[str, object]:
    facts: dict[str, object] = {"metric": "accuracy", "correct": correct, "total": total}
    if images:
        facts["correct_images"] = encode_images(torch.arange(total) < correct)
    return facts


def test_size_is_exact_and_one_sided() -> None:
    then = {"stored_bytes": 1000}
    assert size_regression({"stored_bytes": 1000}, then, same_weights=True) is None
    assert size_regression({"stored_bytes": 1}, then, same_weights=True) is None
    assert "+1" in str(size_regression({"stored_bytes": 1001}, then, same_weights=True))
    assert size_regression({"stored_bytes": 1004}, then, same_weights=False) is None
    assert size_regression({"stored_bytes": 1006}, then, same_weights=False)


@pytest.mark.parametrize("images", [True, False], ids=["paired", "unpaired"])
def test_accuracy_fails_beyond_chance_only(images: bool) -> None:
    then = accuracy(950, images=images)
    assert accuracy_regression(accuracy(950, images=images), then) is None
    assert accuracy_regression(accuracy(1000, images=images), then) is None
    assert accuracy_regression(accuracy(949, images=images), then) is None
    assert "95.00% -> 90.00%" in str(accuracy_regression(accuracy(900, images=images), then))


def test_images_that_change_places_are_no_regression() -> None:
    before = torch.arange(1000) < 950
    after = before.flip(0)
    after[999] = False  # 51 lost, 50 gained
    now, then = (
        {"correct": int(c.sum()), "total": 1000, "correct_images": encode_images(c)}
        for c in (after, before)
    )
    assert accuracy_regression(now, then) is None


def test_another_number_of_images_cannot_be_compared() -> None:
    assert "cannot be compared" in str(comparison_problem(accuracy(9, 10), accuracy(900)))


def test_a_record_of_images_that_contradicts_the_count_is_refused() -> None:
    forged = accuracy(950) | {"correct": 999}
    with pytest.raises(ValueError, match="999 images are correct, its record says 950"):
        accuracy_regression(accuracy(900), forged)


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        ("size", {"stored_bytes": 9}, [0, -1, 9.5, float("nan"), True, "9", None]),
        ("accuracy", {"total": 9, "correct": 5}, [-1, 10, 5.0, float("nan"), True, "5"]),
        (
            "latency",
            {"speed_up": 1.0, "speed_up_low": 1.0, "speed_up_high": 1.0},
            [0.0, -1, float("nan"), float("inf"), True, "1"],
        ),
    ],
)
def test_a_fact_out_of_its_range_is_said_and_never_compared(metric, good, bad) -> None:
    good = {"metric": metric, **good}
    name = list(good)[-1]
    assert comparison_problem(good, good) is None
    for value in bad:
        worse = {**good, name: value}
        assert f"the history has a {name} of" in str(comparison_problem(good, worse))
        assert f"this run has a {name} of" in str(comparison_problem(worse, good))


@pytest.mark.parametrize(
    ("low", "high", "fails"), [(1.9, 2.1, False), (3, 4, False), (1.0, 2.5, False), (1, 1.4, True)]
)
def test_speed_fails_when_the_whole_interval_is_slower(
    low: float, high: float, fails: bool
) -> None:
    now = {"speed_up": (low + high) / 2, "speed_up_low": low, "speed_up_high": high}
    assert bool(speed_up_regression(now, {"speed_up": 2.0})) == fails


@pytest.mark.parametrize(
    ("latency_ms", "fails"),
    [(0.3, False), (3.0, True), (300.0, True)],  # half as slow again: by 0.15 ms, or more
)
def test_a_short_prediction_may_wait_for_its_threads(latency_ms: float, fails: bool) -> None:
    now = {"speed_up": 13.0, "speed_up_low": 12.6, "speed_up_high": 13.4}
    then = {"speed_up": 20.0, "latency_ms": latency_ms}
    assert bool(speed_up_regression(now, then)) == fails
    one = {"num_threads": 1}  # which never sleeps before it is asked
    assert speed_up_regression({**now, **one}, {**then, **one})
    assert bool(speed_up_regression({**now, "num_threads": 2}, {**then, **one})) == fails


@pytest.mark.parametrize("latency_ms", [0.001, 0.035, 0.24, 0.5])
def test_threads_that_wake_never_make_it_twice_as_slow(latency_ms: float) -> None:
    then = {"speed_up": 100.0, "speed_up_low": 97.0, "latency_ms": latency_ms, "num_threads": 2}
    now = {"speed_up": 50.0, "speed_up_low": 48.5, "speed_up_high": 51.5, "num_threads": 2}
    assert speed_up_regression(now, then)
    # What passed once: 0.035 -> 0.24 ms
    now = {"speed_up": 14.6, "speed_up_low": 14.0, "speed_up_high": 15.0}
    assert speed_up_regression(now, then)


def test_the_binomial_tail_is_exact() -> None:
    assert binomial_tail(10, 10) == 1 / 1024
    assert binomial_tail(9, 10) == 11 / 1024
    assert binomial_tail(5, 10) == 1.0


def test_a_fact_that_is_missing_is_said() -> None:
    full = accuracy(5, 10)
    assert comparison_problem(full, full) is None
    assert (
        comparison_problem(full, {"metric": "accuracy", "correct": 5}) == "the history has no total"
    )
    assert "the history 'size'" in str(comparison_problem(full, {"metric": "size"}))


def test_the_record_of_images_is_checked() -> None:
    mask = torch.rand(37) < 0.5
    assert torch.equal(decode_images(encode_images(mask), 37), mask)
    with pytest.raises(ValueError, match="expected a record of 100 images"):
        decode_images(encode_images(mask), 100)
    with pytest.raises(ValueError, match="damaged"):
        decode_images("AAAA", 37)
    with pytest.raises(ValueError, match="damaged"):
        decode_images(17, 37)
    with pytest.raises(ValueError, match="expected a record of 8 images, found 2 bytes or more"):
        decode_images(base64.b64encode(zlib.compress(bytes(10**6))).decode(), 8)
    whole = base64.b64decode(encode_images(mask))
    for damage in (whole[:-1], whole + b"x"):
        with pytest.raises(ValueError, match="expected a record"):
            decode_images(base64.b64encode(damage).decode(), 37)
