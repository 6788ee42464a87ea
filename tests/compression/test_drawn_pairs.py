"""Drawn networks: techniques composed in pairs, and the file of what each technique makes."""

import pytest

from tests.support import techniques
from tests.support.drawn import QUIET, drawn
from tests.support.program import Program

pytestmark = QUIET
PAIRS = (
    ("l1", "static"), ("filters", "static"), ("shared", "static"), ("recalibrated", "static"),
    ("folded", "static"), ("l1", "weights"), ("shared", "dynamic"), ("filters", "bfloat16"),
    ("folded", "weights4"), ("global", "shared"), ("shared", "l1"), ("folded", "filters"),
)  # fmt: skip


@pytest.mark.parametrize("name", [None, *techniques.TECHNIQUES])
def test_a_file_gives_the_network_back(name: str | None) -> None:
    @drawn()
    def each(program: Program) -> None:
        techniques.stored(program, name)

    each()


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_techniques_compose(first: str, second: str) -> None:
    @drawn()
    def each(program: Program) -> None:
        techniques.paired(program, first, second)

    each()
