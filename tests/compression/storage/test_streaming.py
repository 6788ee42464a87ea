"""A file is written whole or not at all: a full disk, a killed process, another writer."""

import errno
import io
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError
from compression.storage import container, file, load, save
from tests.support.runs import printed_by
from tests.support.storage_faults import net
from tests.support.storage_nets import Small, digest


def old(path: Path) -> bytes:
    """Put a model at the path, and return its bytes."""
    save(net(), path)
    return path.read_bytes()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Full:
    """A file on a disk that is full after so many bytes."""

    def __init__(self, target: Any, room: int) -> None:
        self.target, self.room = target, room

    def write(self, data: Any) -> int:
        taken = min(self.room, len(data))
        self.target.write(data[:taken])
        self.room -= taken
        if taken < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("room", [0, 1, 8, 500, 2000])
def test_a_disk_full_half_way_leaves_the_old_file_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, there: bool
) -> None:
    path = tmp_path / "model"
    before = old(path) if there else b""
    monkeypatch.setattr(file, "write", lambda f, *rest: container.write(Full(f, room), *rest))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="not written, disk full") as caught:
        save(Small(), path)
    assert str(caught.value).startswith(str(path))
    assert names(tmp_path) == (["model"] if there else [])
    assert not there or path.read_bytes() == before


def test_a_disk_full_at_each_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = old(tmp_path / "model")
    octets, left = container.octets, [0]

    def fail(tensor: torch.Tensor) -> memoryview:
        if left[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= 1
        return octets(tensor)

    count = len(Small().state_dict())
    with monkeypatch.context() as patch:
        patch.setattr(container, "octets", fail)
        for done in range(count):
            left[0] = done
            with pytest.raises(CheckpointError, match="disk full"):
                save(Small(), tmp_path / "model")
            assert (tmp_path / "model").read_bytes() == before
        left[0] = count
        save(Small(), tmp_path / "model")
    assert names(tmp_path) == ["model"]


def test_a_file_larger_than_the_system_lets_it_be(tmp_path: Path) -> None:
    """The kernel itself refuses, between two writes."""
    before = old(tmp_path / "model")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match="not written, disk full"):
            save(nn.Linear(300, 300), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model").read_bytes() == before
    assert names(tmp_path) == ["model"]


def test_the_hash_is_written_in_its_place() -> None:
    """The file is written once from end to end, and then 64 bytes of its header."""
    written: list[tuple[int, int]] = []

    class Noted(io.BytesIO):
        def write(self, data: Any) -> int:
            written.append((self.tell(), len(data)))
            return super().write(data)

    target = Noted()
    size = container.write(target, dict(Small().state_dict()), {"tensors": {}})
    *parts, (place, length) = written
    assert size == target.tell() == len(target.getvalue()) == sum(n for _, n in parts)
    assert [begin for begin, _ in parts] == [
        sum(n for _, n in parts[:i]) for i in range(len(parts))
    ]
    assert length == 64
    assert target.getvalue()[:place].endswith(b'sha256\\":\\"')


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)  # a fork would not survive others
from torch import nn
from compression.storage import container, file, load, save
from tests.support.storage_nets import digest

folder = Path(sys.argv[1])
path = folder / "model"
def network():
    return nn.Sequential(*[nn.Linear(400, 400) for _ in range(5)])
old, new = network(), network()
size = save(new, path)
save(old, path)
before, write = path.read_bytes(), container.write

class Killing:
    def __init__(self, target, room):
        self.target, self.room = target, room
    def write(self, data):
        if len(data) >= self.room:
            self.target.write(data[: self.room])
            self.target.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.room -= len(data)
        return self.target.write(data)
    def __getattr__(self, name):
        return getattr(self.target, name)

def killed(room):
    pid = os.fork()
    if pid == 0:
        file.write = lambda f, *rest: write(Killing(f, room), *rest)
        save(new, path)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL

# Before the first byte, in the header, in each tensor, and after the last but before the hash.
rooms = [0, 100, *range(size // 12, size, size // 12), size + 1, size + 64]
for room in rooms:
    path.write_bytes(before)
    assert killed(room), room
    assert path.read_bytes() == before, room
    path.unlink()
    assert killed(room), room
    assert not path.exists(), room
    assert all(p.name.startswith(".model.") for p in folder.iterdir())
assert not killed(size + 65)
assert digest(load(path, network)) == digest(new)
print(len(rooms), size, sorted(p.name for p in folder.iterdir()))
"""


def test_kill_in_the_middle_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    printed = printed_by(KILLED_IN_THE_MIDDLE, tmp_path)
    rooms, size, left = printed.split(maxsplit=2)
    assert int(rooms) > 12
    assert int(size) > 3 * 2**20
    assert left.strip() == "['model']"  # the last writer swept what the killed ones left


def test_saving_over_the_file_that_was_loaded(tmp_path: Path) -> None:
    """Nothing of a loaded model lies in the file."""
    path = tmp_path / "model"
    save(Small(), path)
    model = load(path, Small)
    before = digest(model)
    save(net(), path)
    assert digest(model) == before
