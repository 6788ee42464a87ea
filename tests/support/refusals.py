"""What a function may refuse: the features of a program, and why that is fair."""

from collections.abc import Callable
from typing import Any

from compression.errors import CompressionError
from tests.support.program import Program

STRANGE = ("strange", "class", "parametrized", "masked")
"""Operators and layers outside of what is promised."""
# function: features (their beginnings) that it may refuse
MAY_REFUSE: dict[str, tuple[str, ...]] = {
    # fx cannot follow what asks a value for its length; aliasing is refused rather than guessed
    "fold": (*STRANGE, "len", "read after in-place", "overwritten input"),
    "static": (
        *STRANGE,
        "len",
        "several inputs",
        "read after in-place",
        "overwritten input",
        "adaptive max",
    ),
    # An executor may lack a kernel of any kind; test_drawn_executors.py counts how often one does.
    "executor": ("",),
    "prune": STRANGE,
    "structured": ("",),  # no filters but those that make the outputs, no layer of four inputs
    "emptying": ("",),  # every weight of a layer would go
    "share": STRANGE,
    "weights": (*STRANGE, "transposed"),
    "dynamic": STRANGE,
    "cast": STRANGE,
    "save": STRANGE,
    # autograd itself refuses a value that its gradient needs and that was written
    "fit": (*STRANGE, "several", "in-place", "overwritten input", "read after in-place"),
}

# function: what the network lacks where it may refuse too
NEEDS = {"dynamic": "nn.Linear(", "recalibrate": "nn.BatchNorm"}


class RefusedError(Exception):
    """A function refused with its own error, as it may; the example ends here."""


def attempt(function: str, program: Program, call: Callable[[], Any]) -> Any:
    """Return what `call` returns; RefusedError where it refuses and may, AssertionError where not."""
    try:
        return call()
    except CompressionError as error:
        causes = [
            f for f in (*program.features, "any") if f.startswith(MAY_REFUSE.get(function, STRANGE))
        ]
        lacking = function in NEEDS and NEEDS[function] not in program.source
        if not causes and not lacking:
            raise AssertionError(f"{function} refuses what it should take: {error}") from error
        raise RefusedError(f"{function}: {error}") from error
