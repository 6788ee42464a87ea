"""An intact file to damage, and what every damaged one must meet."""

import tempfile
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError
from compression.storage import load, load_checkpoint, save


class Net(nn.Module):
    """A dense, a sparse and a tied tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("sparse", torch.zeros(20))
        self.tied = self.linear.bias


def net() -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    model.get_buffer("sparse")[3] = 1.5
    return model


@cache
def intact_bytes() -> bytes:
    """Return the file of net()."""
    with tempfile.TemporaryDirectory() as folder:
        save(net(), Path(folder) / "model")
        return (Path(folder) / "model").read_bytes()


def refuses(path: Path, data: bytes, *, match: str | None = None) -> None:
    """Assert that both readers raise CheckpointError, and that it names the file."""
    path.write_bytes(data)
    for read in (load, load_checkpoint):
        with pytest.raises(CheckpointError, match=match) as caught:
            read(path, Net)
        assert str(path) in str(caught.value)
