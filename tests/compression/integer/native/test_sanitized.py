"""The native executor's C code under AddressSanitizer and UndefinedBehaviorSanitizer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compression.integer.native
from compression.integer import lacking
from compression.integer.native.instructions import CHOICE, INSTRUCTIONS, features
from tests.support.places import ROOT

MASKED = ROOT / "tests" / "support" / "masked.h"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = ("-O0", "-g1", *SANITIZERS, "-fno-omit-frame-pointer")
SEEN = ("-include", str(MASKED))
BUILDS = {
    "vnni": ("avx512_vnni", (*SEEN, "-DNO_TILES")),
    "amx": ("avx512_vnni", (*SEEN, "-DEMULATED_TILES")),
    "avx2": ("avx2", ("-O1",)),
}
"""Instructions and flags. AVX2's loads and stores of parts of a vector are copies, which are seen."""
PARTS_NETWORKS = 12
"""Drawn networks where vectors are in parts: there the sanitizers take ten times as long."""
NETWORKS = 12 if os.environ.get("HYPOTHESIS_PROFILE", "suite") == "suite" else 200
"""200 in CI, which runs this file again."""
READ_AHEAD = 62
"""Bytes behind an activation's last code that a step may read: one filter per channel reads 64
channels at a time, and there are two of them at least."""
ONE_TOO_FAR = """
int main(int argc, char **argv) {
    char *volatile sixteen = __builtin_malloc(16);
    _mm_mask_storeu_epi8(sixteen + 1, 0xffff >> atoi(argv[1]), _mm_setzero_si128());
}
"""


def runtime(name: str) -> str:
    """Return where gcc keeps a library, or its bare name."""
    if not shutil.which("gcc"):
        return name
    command = ["gcc", f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# torch throws C++ exceptions, which the sanitizer must find at its start.
PRELOADED = [runtime("libasan.so"), runtime("libstdc++.so.6")]
pytestmark = [
    pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native"))),
    pytest.mark.skipif(not all(map(os.path.isabs, PRELOADED)), reason="gcc has no libasan here"),
]


def sanitized(
    cache: Path, networks: int, slack: int, build: str
) -> subprocess.CompletedProcess[str]:
    instructions, flags = BUILDS[build]
    environment = {
        **os.environ,
        "CC": "gcc",
        CHOICE: instructions,
        "COMPRESSION_CFLAGS": " ".join([*FLAGS, *flags]),
        "XDG_CACHE_HOME": str(cache),
        "LD_PRELOAD": " ".join(PRELOADED),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "OMP_WAIT_POLICY": "passive",  # the other tests need the cores
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "tests.support.sanitized",
        str(networks),
        str(slack),
    ]
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("build", BUILDS)
def test_networks_read_and_write_only_what_is_theirs(tmp_path: Path, build: str) -> None:
    """And the sanitizers see it where they do not: with a byte of read-ahead less than is read."""
    instructions = BUILDS[build][0]
    if not next(r for r in INSTRUCTIONS if r.name == instructions).features <= features():
        pytest.skip(f"this CPU lacks {instructions}")
    networks = PARTS_NETWORKS if build == "avx2" else NETWORKS
    run = sanitized(tmp_path, networks, READ_AHEAD, build)
    assert run.returncode == 0, run.stderr[-6000:]
    assert f"{networks} networks ran of " in run.stdout
    assert "with a byte less: 1" in run.stdout, run.stderr[-3000:]
    assert "ERROR: AddressSanitizer" in run.stderr, run.stderr[-3000:]
    assert "depthwise.h" in run.stderr


@pytest.mark.parametrize("lanes_less", [0, 1])
def test_a_masked_store_is_seen_lane_by_lane(tmp_path: Path, lanes_less: int) -> None:
    source, program = tmp_path / "store.c", tmp_path / "store"
    source.write_text(f"#include <stdlib.h>\n{ONE_TOO_FAR}")
    flags = [*FLAGS, *SEEN, "-mavx512f", "-mavx512bw", "-mavx512vl"]
    subprocess.run(["gcc", *flags, str(source), "-o", str(program)], check=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    run = subprocess.run(
        [str(program), str(lanes_less)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("heap-buffer-overflow" in run.stderr) is (lanes_less == 0), run.stderr


def test_every_masked_load_and_store_of_the_sources_is_seen() -> None:
    folder = Path(str(compression.integer.native.__file__)).parent
    sources = "".join(path.read_text() for path in folder.glob("*.[ch]"))
    used = set(
        re.findall(
            r"_mm\d*_(?:maskz?_(?:load|store|expand|compress)|(?:mask_)?i\d+(?:gather|scatter))\w*",
            sources,
        )
    )
    assert used
    assert used <= set(re.findall(r"#define (\w+)", MASKED.read_text()))
