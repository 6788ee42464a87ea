"""What loading and saving take of memory, hostile files first; each in a fresh process."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compression.storage.container import KEY
from tests.support.processes import in_a_fresh_process
from tests.support.storage_faults import About, Entries, forge

MIB = 2**20
HEADER = 2**22  # bytes, the most that are read
# Smallest objects of JSON, and what takes longest to write: an empty object is 64 bytes in memory
# and 8 in its list for 3 in the file; one of a key is 184 and 8 for 8. Twice that is allowed: the
# parser holds the pairs beside the object, and our metadata is text in the header's text.
OBJECTS_ALLOWANCE = 2 * 24 * HEADER
# Buffers, the network, and what is imported late.
ALLOWANCE = 16 * MIB

# Measures each file in a fork of its own, by addresses and not by pages that are in memory: a busy
# machine drives mapped files out and takes them back, and a fork's highest mark starts anew.
# What is larger than this is mapped alone: what is freed is then gone, and leaves no hole.
MALLOC = {name: str(2**17) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
PROGRAM = """
import json, os, resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from compression.storage import load, save
from tests.support.storage_faults import Net, net

def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

def measure(work):
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = memory("VmSize")
        try:
            end = type(work()).__name__
        except Exception as error:
            end = type(error).__name__
        os.write(writer, json.dumps([end, memory("VmPeak") - before]).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    with open(reader) as answer:
        return json.loads(answer.read() or '["killed", 0]')

# What claims more than a few gigabytes then fails here, and not the machine.
resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2**32, resource.RLIM_INFINITY))
save(net(), Path(sys.argv[1]) / "warm")
load(Path(sys.argv[1]) / "warm", Net)
"""
EACH_FILE = """
files = sorted(Path(sys.argv[1]).iterdir())
found = {f.name: measure(lambda: load(f, Net)) for f in files}
"""
HONEST = """
factory = lambda: torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(8)])
model, path = factory(), Path(sys.argv[1]) / "honest"
found["save"] = measure(lambda: save(model, path))
found["load"] = measure(lambda: load(path, factory))
found["a copy"] = measure(lambda: [parameter.clone() for parameter in model.parameters()])
"""


def run(program: str, folder: Path) -> dict[str, tuple[str, int]]:
    """Return how the work on each file ended, and its peak of memory in bytes."""
    # It ends after two minutes: a file that takes so long is as good as one that hangs.
    printed = in_a_fresh_process(PROGRAM + program + "print(json.dumps(found))", folder, **MALLOC)
    return {name: (end, peak) for name, (end, peak) in json.loads(printed).items()}


def raw(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def full(begin: bytes, item: bytes, end: bytes) -> bytes:
    """Return a file whose header is as long as one may be, of many times the item."""
    count = (HEADER - len(begin) - len(end)) // (len(item) + 1)
    return raw(begin + b",".join([item] * count) + end)


def entries_of_nothing() -> bytes:
    field = '"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
    count = HEADER // (len(field.format("00000")) + 1)
    return raw(("{" + ",".join(field.format(f"{i:05}") for i in range(count)) + "}").encode())


def claims(**changes: Any) -> bytes:
    return forge(lambda _, about: about["tensors"]["sparse"].update(changes))


def told_twice(entries: Entries, about: About) -> None:
    """Claim a tensor as the network has it, and again far larger, of one symbol."""
    entries["float32#values"] = torch.zeros(20)
    crc32 = zlib.crc32(bytes(80))
    about["joined"] = {"float32": {"shapes": {"sparse": [20]}, "crc32": crc32, "coded": []}}
    about["tensors"]["sparse"] = CODED | {"shape": [10**9]}
    del entries["sparse#mask"], entries["sparse#values"]
    entries["sparse#codes"] = torch.tensor([0, 128, 128, 0], dtype=torch.uint8)


OBJECTS = f'{{"__metadata__":{{"{KEY}":"['.encode()
CODED = {"encoding": "packed", "bits": 8, "coded": ["codes"], "dtype": "int8"}
GROUPS = {"kind": "weights", "bits": 4, "group_size": 10**8}
# What is in the file, and how much it may take beside twice its bytes.
HOSTILE: dict[str, tuple[Callable[[], bytes], int]] = {
    "a header of a gigabyte": (lambda: (10**9).to_bytes(8, "little") + b"{}", ALLOWANCE),
    "a header of exabytes": (lambda: b"\xff" * 8 + b"{}", ALLOWANCE),
    "a tensor of a gigabyte": (
        lambda: raw(b'{"a":{"dtype":"U8","shape":[1000000000],"data_offsets":[0,1000000000]}}'),
        ALLOWANCE,
    ),
    "a coded tensor of 10**12": (lambda: claims(**CODED, shape=[10**12]), ALLOWANCE),
    "a sparse tensor of 10**12": (lambda: claims(shape=[10**6, 10**6]), ALLOWANCE),
    "a tensor told twice": (lambda: forge(told_twice), ALLOWANCE),
    "a group of 10**8 weights": (
        lambda: forge(lambda _, about: about.update(structure=GROUPS)),
        ALLOWANCE,
    ),
    "empty objects": (lambda: full(b'{"x":[', b"{}", b"]}"), OBJECTS_ALLOWANCE),
    "objects of a key": (lambda: full(b'{"x":[', b'{"":0}', b"]}"), OBJECTS_ALLOWANCE),
    "short texts": (lambda: full(b'{"x":[', b'"ab"', b"]}"), OBJECTS_ALLOWANCE),
    "objects in our metadata": (lambda: full(OBJECTS, b"{}", b']"}}'), OBJECTS_ALLOWANCE),
    "nested objects": (lambda: full(b'{"x":[', b'{"":{"":{"":0}}}', b"]}"), OBJECTS_ALLOWANCE),
    # A tensor of nothing is about a kilobyte in memory.
    "entries of nothing": (entries_of_nothing, HEADER // 50 * 2**10 + OBJECTS_ALLOWANCE),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (build, _) in HOSTILE.items():
        (folder / name).write_bytes(build())
        assert (folder / name).stat().st_size <= HEADER + 8
    return run(EACH_FILE + HONEST, folder)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_bounded_memory(
    ends: dict[str, tuple[str, int]], name: str
) -> None:
    build, allowance = HOSTILE[name]
    end, peak = ends[name]
    assert end == "CheckpointError"
    assert peak <= 2 * len(build()) + allowance


def test_the_intact_file_loads_there_too(ends: dict[str, tuple[str, int]]) -> None:
    """Else the refusals would show nothing."""
    assert ends["warm"][0] == "Net"


def test_a_shape_of_200_000_sizes_is_no_hang(tmp_path: Path) -> None:
    """Their product has millions of digits, and each factor goes over all of them."""
    sizes = ",".join([str(2**63 - 1)] * 200_000)
    header = '{"a":{"dtype":"F32","shape":[' + sizes + '],"data_offsets":[0,0]}}'
    (tmp_path / "sizes").write_bytes(raw(header.encode()))
    assert run(EACH_FILE, tmp_path)["sizes"][0] == "CheckpointError"


def test_an_honest_model_of_32_mib(ends: dict[str, tuple[str, int]]) -> None:
    """Saving looks at one tensor of 4 MiB at a time; loading holds the network."""
    (saved, save_peak), (loaded, load_peak) = ends["save"], ends["load"]
    assert (saved, loaded) == ("int", "Sequential")
    assert save_peak <= 3 * 4 * MIB + ALLOWANCE
    assert load_peak <= 32 * MIB + ALLOWANCE
    assert ends["a copy"][1] >= 32 * MIB, "what is taken is not measured"
