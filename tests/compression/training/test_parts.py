"""A sharded training goes on from the parts of its state, by any number of processes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError, CompressionError
from compression.training import fit, write_parts
from tests.support.nets import mlp
from tests.support.parts import CASES
from tests.support.ranks import Partly, baseline, pictures, still
from tests.support.runs import run_ranks

PROGRAM = "from tests.support.parts import main; main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what two processes wrote, then one from their first epoch on, then two from its first."""
    place = tmp_path_factory.mktemp("parts")
    first, second, third = (place / name for name in ("first", "second", "third"))
    for count, given in ((2, [first]), (1, [second, first, 0]), (2, [third, second, 1])):
        runs = run_ranks(PROGRAM, *given, count=count)
        assert [run.returncode for run in runs] == [0] * count, "".join(r.stderr for r in runs)
    return place


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict[str, torch.Tensor]]:
    """Return a case, and the weights that one process trains without a stop."""
    make, recipe = CASES[request.param]
    return request.param, baseline(make(), recipe=recipe)[0].state_dict()


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-5)


def test_two_one_and_two_processes_go_on(case: Any, folder: Path) -> None:
    name, wanted = case
    for runs, epochs, ranks in (("first", 3, 2), ("second", 2, 1), ("third", 1, 2)):
        assert_close(torch.load(folder / runs / f"{name}.pt", weights_only=True), wanted)
        kept = sorted((folder / runs / name).iterdir())
        assert len(kept) == epochs
        for epoch in kept:
            files = {path.name for path in epoch.iterdir()}
            assert files == {".metadata", *(f"__{rank}_0.distcp" for rank in range(ranks))}


def test_one_process_goes_on_with_the_whole_network(case: Any, folder: Path) -> None:
    name, wanted = case
    make, recipe = CASES[name]
    for runs, epoch in (("first", "0"), ("second", "1")):
        found, losses = baseline(make(), recipe=recipe, resume_from=folder / runs / name / epoch)
        assert len(losses) == 2 - int(epoch)
        assert_close(found.state_dict(), wanted)


def half_written(parts: Path) -> None:
    (parts / ".metadata").unlink()


def cut(parts: Path) -> None:
    (parts / ".metadata").write_bytes((parts / ".metadata").read_bytes()[:-20])


def without_a_part(parts: Path) -> None:
    (parts / "__1_0.distcp").unlink()


def frozen(model: Any) -> nn.Module:
    model.fc.bias.requires_grad_(False)
    return model  # type: ignore[no-any-return]


def wider(model: Any) -> nn.Module:
    model.unused = nn.Linear(2, 3)
    return model  # type: ignore[no-any-return]


class Used(Partly):
    """Has no layer that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        del self.unused


ADAM, PARTLY = CASES
FOREIGN: dict[str, tuple[str, Callable[[], nn.Module], str, Callable[[Path], object]]] = {
    "another network": (ADAM, mlp, ADAM, lambda _: None),
    "another width": (PARTLY, lambda: wider(Partly()), PARTLY, lambda _: None),
    "other parameters": (ADAM, lambda: frozen(still(group=True)), ADAM, lambda _: None),
    "a smaller network": (PARTLY, Used, PARTLY, lambda _: None),
    "another optimizer": (ADAM, lambda: still(group=True), PARTLY, lambda _: None),
    "no folder": (ADAM, lambda: still(group=True), ADAM, shutil.rmtree),
    "half-written": (ADAM, lambda: still(group=True), ADAM, half_written),
    "a cut list": (ADAM, lambda: still(group=True), ADAM, cut),
    "no file of a process": (ADAM, lambda: still(group=True), ADAM, without_a_part),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_folder_of_something_else_is_refused(what: str, folder: Path, tmp_path: Path) -> None:
    name, make, recipe, change = FOREIGN[what]
    parts = tmp_path / "parts"
    shutil.copytree(folder / "first" / name / "0", parts)
    change(parts)
    with pytest.raises(CompressionError, match=r"resume_from is no state .*parts: ") as error:
        fit(make(), pictures(), CASES[recipe][1], resume_from=parts)
    assert len(str(error.value)) < 500


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="file: not written, FileExistsError"):
        write_parts(tmp_path / "file", {"model": mlp().state_dict()})
