"""A round in which another process took the core is no evidence of how long the work takes."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.timing import preemption
from benchmarks.timing import speed_up as interleaving
from benchmarks.timing.preemption import Waits, count_waits, wait_s
from benchmarks.timing.speed_up import MIN_PAIRS, PATIENCE_S, Pairs, interleave, latency_facts

WORK_S = {"baseline": 5e-3, "technique": 0.2e-3}
SLICE_S = 3e-3


class Machine:
    """A core by a made-up clock, that a neighbour takes for one slice after each of ours."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, busy: bool) -> None:
        self.now_s, self.wait_s, self.left_s = 0.0, 0.0, SLICE_S
        self.busy = busy
        monkeypatch.setattr("time.perf_counter", lambda: self.now_s)
        monkeypatch.setattr(interleaving, "count_waits", self.counting)

    @contextmanager
    def counting(self) -> Iterator[object]:
        yield lambda: Waits((self.wait_s, 0.0), 0, 0.0)

    def timer(self, work_s: float):
        def run() -> float:
            started = self.now_s
            left = work_s
            while left > 0:
                step = min(left, self.left_s)
                left -= step
                self.now_s += step
                self.left_s -= step
                if self.left_s <= 0:
                    self.left_s = SLICE_S
                    self.now_s += SLICE_S * self.busy
                    self.wait_s += SLICE_S * self.busy
            return self.now_s - started

        return run

    def measure(self, **works: float) -> Pairs:
        timers = [self.timer(seconds) for seconds in (works or WORK_S).values()]
        return interleave(*timers, seed=0, budget_s=0.5)


def test_a_neighbour_stretches_the_longer_of_two_and_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = Machine(monkeypatch, busy=False).measure()
    assert (quiet.preempted, quiet.noisy) == (0, False)
    assert latency_facts(quiet)["speed_up"] == pytest.approx(25)
    busy = Machine(monkeypatch, busy=True).measure()
    assert latency_facts(busy)["speed_up"] > 35, "what a gate without counts would have believed"
    assert busy.noisy
    assert busy.preempted is not None
    assert busy.preempted >= MIN_PAIRS
    assert latency_facts(busy)["noisy"] is True


def test_preempted_pairs_are_dropped_where_enough_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # 0.6 ms in slices of 3 ms: most rounds lie within one.
    pairs = Machine(monkeypatch, busy=True).measure(baseline=0.4e-3, technique=0.2e-3)
    assert not pairs.noisy
    assert pairs.preempted
    assert max(pairs.baseline_s) == pytest.approx(0.4e-3)
    assert latency_facts(pairs)["speed_up"] == pytest.approx(2)
    assert latency_facts(pairs)["preempted"] == pairs.preempted


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, busy=True)
    machine.measure()
    assert PATIENCE_S <= machine.now_s < PATIENCE_S + 0.1


def test_rounds_that_nobody_counted_claim_nothing() -> None:
    assert not {"preempted", "noisy"} & latency_facts(Pairs((1.0, 1.0), (1.0, 1.0))).keys()


def test_a_thread_that_cannot_run_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    core = min(os.sched_getaffinity(0))
    done = threading.Event()

    def spin() -> None:
        os.sched_setaffinity(0, {core})  # of this thread only
        done.wait(0.05)
        while not done.is_set():
            pass

    rival = threading.Thread(target=spin)
    rival.start()
    with count_waits() as read:
        before = read()
        if not before.delays_s:
            done.set()
            pytest.skip("this system does not count the waits of threads")
        assert len(before.delays_s) >= 2, "of each thread"
        time.sleep(0.02)
        assert wait_s(before, read()) < 1.0
    done.set()
    rival.join()


def test_the_longest_wait_of_any_thread_counts() -> None:
    before, after = Waits((1.0, 5.0), 0, 0.0), Waits((1.5, 5.25), 9, 9.0)
    assert wait_s(before, after) == 0.5


@pytest.mark.parametrize(("switches", "waited"), [(3, 0.0), (4, 0.25)])
def test_without_counts_it_waited_only_where_it_was_switched_out(
    switches: int, waited: float
) -> None:
    assert wait_s(Waits((), 3, 1.0), Waits((), switches, 1.25)) == waited


def test_a_system_that_counts_no_waits_tells_switches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preemption, "TASKS", tmp_path / "nowhere")
    with count_waits() as read:
        before = read()
        time.sleep(0.01)
        after = read()
    assert before.delays_s == after.delays_s == ()
    assert after.idle_s - before.idle_s >= 0.005
    (tmp_path / "1").mkdir()
    monkeypatch.setattr(preemption, "TASKS", tmp_path)
    with count_waits() as read:
        assert read().delays_s == ()
