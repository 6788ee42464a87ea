"""The compiled half: C beside this file, built once by the machine's own compiler and cached."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.integer.native.step import CStep
from compression.paths import cache_folder

SOURCES = ("step.h", "convolution.h", "pointwise.h", "run.c")
FLAGS = (
    "-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni",
    "-ffp-contract=off",  # a fused multiply-add would round once where the reference rounds twice
    "-fopenmp", "-shared", "-fPIC",
)  # fmt: skip
COMPILERS = ("cc", "gcc", "clang")


@cache
def library() -> Any:
    """Return the compiled functions.

    CompressionError where the CPU has no AVX-512 with VNNI, where no C compiler with OpenMP is found
    ($CC, cc, gcc, clang), or what it says of the source.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise CompressionError(
            f"the native executor needs an x86-64 CPU, found {platform.machine()}"
        )
    found = _loaded()
    if not found.supported():
        raise CompressionError("the native executor needs a CPU with AVX-512 and VNNI")
    found.run.restype = found.step_bytes.restype = ctypes.c_int64
    assert found.step_bytes() == ctypes.sizeof(CStep), "step.py and step.h differ"
    return found


def _loaded() -> ctypes.CDLL:
    """Load the library from the cache, or compile it; without a cache that can be written, too."""
    folder = Path(__file__).parent
    parts = [(folder / name).read_bytes() for name in SOURCES]
    digest = hashlib.sha256(b"\0".join([*parts, " ".join(FLAGS).encode()])).hexdigest()[:16]
    cached = cache_folder() / f"native-{digest}.so"
    with suppress(OSError):
        return ctypes.CDLL(str(cached))
    with TemporaryDirectory() as temporary:
        made = Path(temporary) / cached.name
        _compile(folder / SOURCES[-1], made)
        with suppress(OSError, CheckpointError):
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cached, made.read_bytes())
        return ctypes.CDLL(str(made))


def _compile(source: Path, target: Path) -> None:
    names = [n for n in (os.environ.get("CC"), *COMPILERS) if n and shutil.which(n)]
    if not names:
        raise CompressionError(
            "the native executor needs a C compiler: expected $CC, cc, gcc or clang, found none"
        )
    command = [names[0], *FLAGS, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompressionError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
