"""Which of a CPU's instructions the C beside this file is compiled for: the widest that it has."""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from compression.errors import CompressionError

CHOICE = "COMPRESSION_ISA"
"""The environment's choice of a row below, where the CPU could run a faster one."""
CPUINFO = Path("/proc/cpuinfo")
HWCAP, HWCAP2 = 16, 26
"""What Linux's getauxval is asked for on ARM, and the bits of what it answers (asm/hwcap.h)."""
HWCAP_BITS = {"asimddp": (HWCAP, 1 << 20), "i8mm": (HWCAP2, 1 << 13)}
SYSCTLS = {"asimddp": "hw.optional.arm.FEAT_DotProd", "i8mm": "hw.optional.arm.FEAT_I8MM"}
"""What macOS calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """Instructions that kernels are compiled for.

    `name` is what $COMPRESSION_ISA calls them, `machine` the CPU's family, `features` what Linux calls
    all that it must have, and `flags` what a compiler is told: -O3 makes the parts of vectors (wide.h)
    no faster, and takes half as long again.
    """

    name: str
    machine: str
    features: frozenset[str]
    flags: tuple[str, ...]


INSTRUCTIONS = (
    Instructions(
        name="avx512_vnni", machine="x86_64",
        features=frozenset({"avx512f", "avx512bw", "avx512vl", "avx512_vnni"}),
        flags=("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
    ),
    Instructions(
        name="avx_vnni", machine="x86_64", features=frozenset({"avx2", "fma", "avx_vnni"}),
        flags=("-mavx2", "-mfma", "-mavxvnni", "-O2"),
    ),
    Instructions(
        name="avx2", machine="x86_64", features=frozenset({"avx2", "fma"}),
        flags=("-mavx2", "-mfma", "-O2"),
    ),
    Instructions(
        name="i8mm", machine="aarch64", features=frozenset({"asimddp", "i8mm"}),
        flags=("-march=armv8.2-a+dotprod+i8mm", "-O2"),
    ),
    Instructions(
        name="dotprod", machine="aarch64", features=frozenset({"asimddp"}),
        flags=("-march=armv8.2-a+dotprod", "-O2"),
    ),
)  # fmt: skip
"""Of each family the fastest first."""


def instructions() -> Instructions:
    """Return what to compile for: what $COMPRESSION_ISA names, else the fastest that the CPU has.

    CompressionError names what is missing.
    """
    wanted = os.environ.get(CHOICE, "")
    known = [row.name for row in INSTRUCTIONS]
    if wanted and wanted not in known:
        raise CompressionError(f"${CHOICE}: expected one of {', '.join(known)}, found {wanted!r}")
    machine, has = _machine(), features()
    for row in INSTRUCTIONS:
        if row.machine == machine and row.features <= has and wanted in ("", row.name):
            return row
    raise CompressionError(
        "the native executor needs an x86-64 CPU with AVX2 and FMA, or an ARM one with dot products"
        f"{f', and what ${CHOICE}={wanted} names' if wanted else ''}; found {platform.machine()}"
        f" with {', '.join(sorted(_known_features() & has)) or 'none of these'}"
    )


@cache
def features() -> frozenset[str]:
    """Return what the CPU has, as Linux calls it; of ARM what is asked for below alone."""
    if _machine() == "aarch64":
        return frozenset(_arm_features())
    with_flags = CPUINFO.read_text() if CPUINFO.exists() else ""
    found = re.search(r"^flags\s*:(.*)$", with_flags, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def _machine() -> str:
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


def _known_features() -> frozenset[str]:
    return frozenset().union(*(row.features for row in INSTRUCTIONS))


def _arm_features() -> Iterator[str]:
    system = ctypes.CDLL(None)
    if platform.system() == "Darwin":
        for name, key in SYSCTLS.items():
            value, size = ctypes.c_int(0), ctypes.c_size_t(ctypes.sizeof(ctypes.c_int))
            address = ctypes.byref(value), ctypes.byref(size)
            if system.sysctlbyname(key.encode(), *address, None, 0) == 0 and value.value:
                yield name
        return
    system.getauxval.argtypes, system.getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    for name, (which, bit) in HWCAP_BITS.items():
        if system.getauxval(which) & bit:
            yield name
