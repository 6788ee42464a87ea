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
        "several",
        "read after in-place",
        "overwritten input",
        "adaptive max",
    ),
    "native": ("transposed", "grouped transposed"),
    "onnx": (),
    "prune": STRANGE,
    "structured": STRANGE,
    "share": STRANGE,
    "weights": (*STRANGE, "transposed"),
    "dynamic": STRANGE,
    "cast": STRANGE,
    "save": STRANGE,
    "fit": (*STRANGE, "several"),
}


class RefusedError(Exception):
    """A function refused with its own error, as it may; the example ends here."""


def attempt(function: str, program: Program, call: Callable[[], Any]) -> Any:
    """Return what `call` returns; RefusedError where it refuses and may, AssertionError where not."""
    try:
        return call()
    except CompressionError as error:
        causes = [f for f in program.features if f.startswith(MAY_REFUSE[function])]
        if not causes:
            raise AssertionError(f"{function} refuses what it should take: {error}") from error
        raise RefusedError(f"{function}: {error}") from error
