"""Drawn networks: pruning, sharing, small weights, casts, counts and training."""

from tests.support import dtypes, techniques
from tests.support.drawn import QUIET, drawn
from tests.support.program import Program

pytestmark = QUIET


@drawn()
def test_asked_sparsity_is_found(program: Program) -> None:
    techniques.pruned(program)


@drawn()
def test_filters_go_whole(program: Program) -> None:
    techniques.filters(program)


@drawn()
def test_layers_share_so_many_values(program: Program) -> None:
    techniques.shared(program)


@drawn()
def test_rounded_networks_err_within_their_bounds(program: Program) -> None:
    techniques.rounded(program)


@drawn(odd=True)
def test_unknown_layers_are_rounded_right_or_refused(program: Program) -> None:
    techniques.rounded(program)


@drawn(odd=True)
def test_unknown_layers_are_pruned_or_listed(program: Program) -> None:
    techniques.pruned(program)


@drawn(odd=True)
def test_files_give_unknown_layers_back(program: Program) -> None:
    techniques.stored(program)


@drawn()
def test_counts_of_multiplications(program: Program) -> None:
    techniques.counted(program)


@drawn(classifier=True)
def test_a_step_of_training(program: Program) -> None:
    techniques.trained(program)


@drawn(classifier=True)
def test_a_step_with_a_teacher(program: Program) -> None:
    techniques.taught(program)


@drawn(0.1)
def test_networks_in_other_formats(program: Program) -> None:
    dtypes.in_formats(program)
