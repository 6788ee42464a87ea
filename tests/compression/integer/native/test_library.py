"""The cached compiled library: it is loaded intact, or made again."""

import hashlib
import importlib
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compression.errors import CompressionError
from compression.integer import lacking
from tests.support.runs import run_at_once, run_program

# By its name: the package's attribute `library` is the function.
built = importlib.import_module("compression.integer.native.library")
pytestmark = pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
WITHOUT_COMPILER = """
import sys, torch
from compression.errors import CompressionError
from compression.integer import lower_native
from compression.quantization import quantize_static
from tests.support.nets import images, residual
try:
    lower_native(quantize_static(residual(), images()), images())
except CompressionError as error:
    print(error)
"""
LOADS = "from compression.integer.native import library; print(library().uses_amx())"


class Counted:
    """A compiler that copies `compiled`, and a loader that only reads: both say what they did."""

    def __init__(self, compiled: bytes) -> None:
        self.compiled, self.compilations, self.loaded = compiled, 0, b""

    def compile(self, _: list[str], target: Path) -> None:
        self.compilations += 1
        target.write_bytes(self.compiled)

    def load(self, path: str) -> str:
        self.loaded = Path(path).read_bytes()
        return path

    def loads(self) -> int:
        """Load the library, intact whatever lies in the cache, and return how often it compiled."""
        before = self.compilations
        built._load()
        assert self.loaded.startswith(self.compiled)
        assert len(self.loaded) - len(self.compiled) in (0, built.SHA256_BYTES)
        return self.compilations - before


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted(random.Random(0).randbytes(5000))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(built, "_compile", made.compile)
    monkeypatch.setattr(built.ctypes, "CDLL", made.load)
    return made


def cached(folder: Path) -> Path:
    (found,) = folder.glob("*/native-*.so")
    return found


def test_an_intact_library_is_compiled_once(counted: Counted, tmp_path: Path) -> None:
    assert [counted.loads() for _ in range(3)] == [1, 0, 0]
    assert re.fullmatch(r"native-[0-9a-f]{16}-[0-9a-f]{16}\.so", cached(tmp_path).name)


def test_a_flipped_byte_is_never_loaded(
    counted: Counted, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counted.loads()
    path = cached(tmp_path)
    good = path.read_bytes()
    drawn = random.Random(0)
    last = range(len(good) - built.SHA256_BYTES, len(good))  # each byte of the checksum, too
    for at in [*drawn.sample(range(len(good)), 200), 0, *last]:
        bad = bytearray(good)
        bad[at] ^= 1 << drawn.randrange(8)
        path.write_bytes(bad)
        caplog.clear()
        assert counted.loads() == 1, f"byte {at} was flipped"
        assert path.read_bytes() == good
        assert f"{path} is damaged and is not loaded: compiling it again" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: good[:0],
        lambda good: good[:10],
        lambda good: good[:-1],
        lambda good: good + b"\0",
        lambda good: good[: -built.SHA256_BYTES],
        lambda good: good[:0] + hashlib.sha256().digest(),
        lambda good: built.with_checksum(good[: -built.SHA256_BYTES], "native-another.so"),
        lambda good: b"<!DOCTYPE html>" + good,
    ],
    ids=["empty", "short", "cut", "longer", "unchecked", "a bare sum", "another's", "foreign"],
)
def test_what_is_no_library_of_ours_is_made_again(
    counted: Counted, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    counted.loads()
    path = cached(tmp_path)
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert [counted.loads(), counted.loads()] == [1, 0]
    assert path.read_bytes() == good


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_cannot_be_written_is_read(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    counted.loads()
    if damaged:
        cached(tmp_path).write_bytes(b"")

    def full(*_: object) -> None:  # a chmod does not stop root
        raise built.CheckpointError("disk full")

    monkeypatch.setattr(built, "write_atomically", full)
    assert [counted.loads(), counted.loads()] == [damaged, damaged]


def test_without_a_compiler_any_good_library_of_these_sources_will_do(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted.loads()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert counted.loads() == 0
    cached(tmp_path).write_bytes(b"damaged")
    with pytest.raises(CompressionError, match=r"needs a C compiler: expected .* found none"):
        counted.loads()


@pytest.mark.parametrize(
    "changed", ["source", "a new header", "a new table", "flags", "compiler", "version"]
)
def test_what_a_library_is_made_of_names_its_file(
    counted: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for path in Path(built.__file__).parent.iterdir():
        if path.is_file():
            shutil.copy(path, sources)
    monkeypatch.setattr(built, "__file__", str(sources / "library.py"))
    compiler = tmp_path / "bin" / "mycc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho 12.1 $1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert [counted.loads(), counted.loads()] == [1, 0]
    (sources / "step.py").write_text("what is Python's is no part of it")
    assert counted.loads() == 0
    match changed:
        case "source":
            with (sources / "run.c").open("a") as file:
                file.write("\n")
        case "a new header":
            (sources / "new.h").write_text("")
        case "a new table":
            (sources / "table.inc").write_text("")
        case "flags":
            monkeypatch.setenv(built.MORE_FLAGS, "-g")
        case "compiler":
            monkeypatch.setenv("CC", f"{compiler} -m64")
        case "version":
            compiler.write_text("#!/bin/sh\necho 12.2\n")
            built._version.cache_clear()  # as in the next process
    assert [counted.loads(), counted.loads()] == [1, 0]


def test_two_processes_build_it_at_once(tmp_path: Path) -> None:
    # Without optimizations: they take four of five seconds.
    mine = {"XDG_CACHE_HOME": str(tmp_path), "COMPRESSION_CFLAGS": "-O0"}
    said = [run.stdout + run.stderr for run in run_at_once(LOADS, **mine)]
    assert said[0] == said[1]
    assert said[0].strip().isdigit(), said
    assert built._is_intact(cached(tmp_path))
    assert run_program(LOADS, **mine, CC="", PATH="").stdout == said[0]


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("", "needs a C compiler: expected .* found none"),
        ("#!/bin/sh\necho no such option >&2\nexit 1\n", "cc .* failed: no such option"),
        ("no program\n", "was not built by .*Exec format error.* it needs a compiler that runs"),
    ],
)
def test_a_machine_without_a_compiler_says_so(tmp_path: Path, compiler: str, message: str) -> None:
    if compiler:
        (tmp_path / "cc").write_text(compiler)
        (tmp_path / "cc").chmod(0o755)
    cache = tmp_path / "cache"
    done = run_program(WITHOUT_COMPILER, CC="", PATH=str(tmp_path), XDG_CACHE_HOME=str(cache))
    said = done.stdout + done.stderr
    assert re.search(message, said), said
    assert "Traceback" not in said
    assert not list(cache.glob("*/*"))


def test_a_user_without_a_home_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(built.cache_folder.__globals__["Path"], "home", unknown)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which is ignored
    with pytest.raises(CompressionError, match="set XDG_CACHE_HOME to an absolute path"):
        built._load()
