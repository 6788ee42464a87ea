"""How a property of a program becomes a hypothesis test."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings

from tests.support.drawing import programs
from tests.support.program import Program
from tests.support.refusals import RefusedError
from tests.support.strategies import examples

# What torch says of some drawn networks, and any of our users' would hear.
IGNORED = (
    "ignore:Using padding='same' with even kernel",
    "ignore:input's size at dim=0 does not match num_features",
    "ignore:Initializing zero-element tensors",
    "ignore:.*non-contiguous.*",
)
QUIET = [pytest.mark.filterwarnings(text) for text in IGNORED]
EXAMPLES = {"suite": 1 / 6}.get(os.environ.get("HYPOTHESIS_PROFILE", "suite"), 5.0)
"""Times the profile's: 10 in the suite, 300 in CI (profile ci), 20,000 at night (nightly)."""


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: a second one makes networks this small ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def drawn(factor: float = 1.0, **options: bool) -> Callable[[Callable[..., Any]], Any]:
    """Run a test on drawn programs, `factor` of the usual examples; a fair refusal ends an example."""

    def decorate(test: Callable[..., Any]) -> Any:
        def on_a_program(program: Program) -> None:
            try:
                with _one_thread():
                    test(program)
                event("right")
            except RefusedError as refused:
                event(f"refused by {str(refused).split(':')[0]}")

        on_a_program.__name__, on_a_program.__qualname__ = test.__name__, test.__qualname__
        on_a_program.__module__, on_a_program.__doc__ = test.__module__, test.__doc__
        runs = settings(
            max_examples=examples(EXAMPLES * factor),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        return runs(given(program=programs(**options))(on_a_program))

    return decorate


def share_right(check: Callable[[Program], None], seeds: range, **options: bool) -> float:
    """Return the share of programs that `check` does not refuse."""
    from tests.support.drawing import program_of_seed

    right = 0
    for seed in seeds:
        try:
            with _one_thread():
                check(program_of_seed(seed, **options))
            right += 1
        except RefusedError:
            pass
    return right / len(seeds)


__all__ = ["QUIET", "drawn", "share_right"]
