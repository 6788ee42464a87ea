"""What a state dict leaves out: versions, and buffers that are not persistent."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CheckpointError
from compression.storage import load, save
from compression.storage.container import read
from tests.support.storage_nets import Holds, Versioned


def test_versions_are_kept_in_the_file(tmp_path: Path) -> None:
    save(nn.Sequential(Versioned(2, 2), nn.BatchNorm1d(2)), tmp_path / "model")
    about = read(tmp_path / "model").about
    assert about is not None
    assert about["versions"] == {"0": 5}
    assert "unstored" not in about


class Newer(Versioned):
    _version = 6


def test_a_version_that_the_network_does_not_read_is_refused(tmp_path: Path) -> None:
    save(Versioned(2, 2), tmp_path / "model")
    with pytest.raises(CheckpointError, match="own load_state_dict refuses the weights: version 5"):
        load(tmp_path / "model", lambda: Newer(2, 2))


@pytest.mark.parametrize("share", [1 + 2e-7, 1.0])
def test_a_buffer_made_again_with_rounding_errors_is_the_same(share: float, tmp_path: Path) -> None:
    table = torch.arange(99.0).sin()
    save(Holds(table * share, persistent=False), tmp_path / "model")
    load(tmp_path / "model", lambda: Holds(table, persistent=False))


TABLES: dict[str, Tensor | None] = {
    "none": None,
    "ones": torch.ones(99),
    "shifted": torch.arange(99.0).cos(),
    "negated": -torch.arange(99.0).sin(),
    "shorter": torch.arange(98.0).sin(),
    "doubles": torch.arange(99.0).sin().double(),
    "integers": torch.arange(99),
}


@pytest.mark.parametrize("kind", TABLES)
def test_another_buffer_that_is_not_saved_is_refused(kind: str, tmp_path: Path) -> None:
    save(Holds(torch.arange(99.0).sin(), persistent=False), tmp_path / "model")
    with pytest.raises(CheckpointError, match="odd is a buffer that a state dict leaves out"):
        load(tmp_path / "model", lambda: Holds(TABLES[kind], persistent=False))


def test_whole_numbers_that_are_not_saved_are_compared_exactly(tmp_path: Path) -> None:
    save(Holds(torch.arange(10**5), persistent=False), tmp_path / "model")
    other = torch.arange(10**5).index_fill(0, torch.tensor(7), 8)
    with pytest.raises(CheckpointError, match="odd is a buffer"):
        load(tmp_path / "model", lambda: Holds(other, persistent=False))
