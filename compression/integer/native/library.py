"""The compiled half: C beside this file, built once by the machine's own compiler and cached.

A cached file is the library followed by a SHA-256, which a loader ignores: a flipped byte would
compute wrong, hang or crash. Its name says what it was made of, by which flags and compiler.
"""

import ctypes
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from compression.atomic import write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.integer.native.instructions import instructions
from compression.integer.native.interface import check_interface
from compression.paths import cache_folder

log = logging.getLogger(__name__)

FLAGS = (
    "-O3", "-fno-math-errno",
    "-ffp-contract=off",  # a fused multiply-add would round once where the reference rounds twice
    "-fopenmp", "-shared", "-fPIC",
)  # fmt: skip
MORE_FLAGS = "COMPRESSION_CFLAGS"
"""The environment's flags after ours, such as -fsanitize=address: a build of its own."""
COMPILERS = ("cc", "gcc", "clang")
SHA256_BYTES = 32


@cache
def library() -> Any:
    """Return the compiled functions.

    CompressionError where the CPU has none of the instructions that they are written for, where no C
    compiler with OpenMP is found ($CC, cc, gcc, clang), or what it says of the source.
    $COMPRESSION_CFLAGS adds flags, $COMPRESSION_ISA chooses among a CPU's instructions.
    """
    compiled = _load()
    check_interface(compiled)
    compiled.use_amx(1)  # where there is none, nothing happens
    pointer, number, small = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    compiled.run.argtypes = [
        pointer, number, *([pointer] * 3), *([number] * 5), pointer, small,
    ]  # fmt: skip
    compiled.scratch_bytes.argtypes = [pointer, number]
    compiled.team_numbers.argtypes = [number, small]
    compiled.team_numbers.restype = number
    compiled.divide_evenly.argtypes = [pointer, number, small]
    compiled.move_edges.argtypes = [pointer, pointer, number, small, number]
    compiled.divide_evenly.restype = compiled.move_edges.restype = None
    compiled.run.restype = compiled.scratch_bytes.restype = number
    compiled.linear_weights.argtypes = [pointer] * 5 + [number] * 4 + [small] * 2
    compiled.linear_weights.restype = None
    compiled.linear_dynamic.argtypes = [pointer] * 6 + [number] * 3 + [small]
    # Its numbers as pointers, too: ctypes takes them in half the time.
    compiled.embedding.argtypes = [pointer] * 5
    compiled.recurrent.argtypes = [
        *([small] * 2 + [number] + [pointer] * 9), *([number, small] + [pointer] * 3),
        *([number] * 2 + [small]),
    ]  # fmt: skip
    return compiled


def missing() -> str | None:
    """Say what the machine lacks for the native executor, None where it can run."""
    try:
        library()
    except CompressionError as error:
        return str(error)
    return None


def _load() -> ctypes.CDLL:
    """Load the library from the cache, or compile it; without a cache that can be written, too."""
    sources = _sources()
    flags = [*FLAGS, *instructions().flags, *shlex.split(os.environ.get(MORE_FLAGS, ""))]
    parts = [part for path in sources for part in (path.name.encode(), path.read_bytes())]
    stem = f"native-{_short(*parts, *map(str.encode, flags))}"
    compiler = _compiler()
    # Without a compiler, what any made before will do.
    name = f"{stem}-{_short(_version(*compiler))}.so" if compiler else f"{stem}-*.so"
    for cached in sorted(cache_folder().glob(name)):
        with suppress(OSError):  # a folder, or on a file system that nothing is run from
            if _is_intact(cached):
                return ctypes.CDLL(str(cached))
            log.warning("%s is damaged and is not loaded: compiling it again", cached)
    if not compiler:
        raise CompressionError(
            "the native executor needs a C compiler: expected $CC, cc, gcc or clang, found none"
        )
    command = [*compiler, *flags, *(str(path) for path in sources if path.suffix == ".c")]
    return _build(command, cache_folder() / name)


def _sources() -> list[Path]:
    """Return what the library is made of: every file beside this one that is not Python's."""
    beside = Path(__file__).parent.iterdir()
    return sorted(p for p in beside if p.is_file() and p.suffix not in (".py", ".pyc"))


def _build(command: list[str], cached: Path) -> ctypes.CDLL:
    """Compile the library, keep it at `cached` where that can be written, and load it."""
    try:
        with TemporaryDirectory() as temporary:
            made = Path(temporary) / cached.name
            _compile(command, made)
            with suppress(OSError, CheckpointError):
                cached.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(cached, with_checksum(made.read_bytes(), cached.name))
            return ctypes.CDLL(str(made))
    except OSError as error:
        raise CompressionError(
            f"the native executor was not built by {' '.join(command)}: {error}; it needs a compiler "
            "that runs, and a folder for temporary files that libraries load from ($TMPDIR)"
        ) from error


def _compile(command: list[str], target: Path) -> None:
    command = [*command, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise CompressionError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def with_checksum(compiled: bytes, name: str) -> bytes:
    """Return what a cached file called `name` holds: the library and its SHA-256."""
    # With the name: a library of other sources, copied over this one, is not taken for it.
    return compiled + hashlib.sha256(name.encode() + b"\0" + compiled).digest()


def _is_intact(cached: Path) -> bool:
    held = cached.read_bytes()
    return held == with_checksum(held[:-SHA256_BYTES], cached.name)


def _compiler() -> list[str]:
    """Return the first compiler's command, as $CC may be several words; [] for none."""
    commands = map(shlex.split, (os.environ.get("CC", ""), *COMPILERS))
    return next((words for words in commands if words and shutil.which(words[0])), [])


@cache
def _version(*compiler: str) -> bytes:
    """Return what the compiler says of itself: another one, or an upgraded one, builds anew."""
    said = b""
    with suppress(OSError):  # what cannot run shows when it compiles
        said = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    return b"\0".join([*map(str.encode, compiler), said])


def _short(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
