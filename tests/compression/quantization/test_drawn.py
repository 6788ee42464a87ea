"""Drawn networks: folding and static INT8 compute them right, or say what they refuse."""

import pytest

from tests.support import executed
from tests.support.drawn import QUIET, drawn, share_right
from tests.support.program import Program

pytestmark = QUIET


@drawn()
def test_folding_leaves_the_outputs(program: Program) -> None:
    executed.folded(program)


@drawn()
def test_the_reference_errs_within_what_its_codes_allow(program: Program) -> None:
    executed.static(program)


@drawn(image=True)
def test_so_on_networks_for_images(program: Program) -> None:
    executed.static(program)


@drawn(0.5, image=True, outputs=True)
def test_so_on_networks_of_several_outputs(program: Program) -> None:
    executed.static(program)


@drawn(odd=True)
def test_unknown_operators_are_right_or_refused(program: Program) -> None:
    executed.static(program)


@drawn(0.1)
def test_every_calibration_gives_finite_outputs(program: Program) -> None:
    executed.calibrated(program)


@pytest.mark.parametrize(
    ("odd", "least"), [(False, 0.9), (True, 0.25)], ids=["usual operators", "odd ones"]
)
def test_most_networks_are_taken(odd: bool, least: float) -> None:
    assert share_right(executed.static, range(25), odd=odd) >= least
