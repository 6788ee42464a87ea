"""Do the C of this folder and its Python describe the same structs and numbers? Asked at each load."""

import ctypes
from collections.abc import Iterator
from typing import Any, NamedTuple

from compression.errors import CompressionError
from compression.integer.native.chunks import ROLES
from compression.integer.native.packing import BAND, BLOCK, LANES
from compression.integer.native.step import C_TYPE, KINDS, CStep
from compression.quantization.attention import LAST
from compression.quantization.sums import REST_STEPS


class Entry(NamedTuple):
    """A name, its type in C ("enum" for a number, "bytes" for a size), its offset or its number."""

    type: str
    name: str
    number: int

    def __str__(self) -> str:
        """Say what stands there, as a person would look for it."""
        match self.type:
            case "enum":
                return f"{self.name} = {self.number}"
            case "bytes":
                return f"struct {self.name} of {self.number} bytes"
        return f"{self.type} {self.name} at byte {self.number}"


class _CEntry(ctypes.Structure):
    _fields_ = (("type", ctypes.c_char_p), ("name", ctypes.c_char_p), ("number", ctypes.c_int64))


def check_interface(library: Any) -> None:
    """Raise CompressionError with the first name on which the compiled C and Python differ."""
    for table, expected in TABLES.items():
        entries = list(_read(library, table))
        for ours, theirs in zip(expected, entries, strict=False):
            if ours != theirs:
                raise _disagreement(str(theirs), str(ours))
        if len(expected) != len(entries):
            raise _disagreement(f"{len(entries)} {table}", f"{len(expected)}")


def _disagreement(in_c: str, in_python: str) -> CompressionError:
    return CompressionError(
        f"the native executor's C and Python disagree: found {in_c} in step.h, expected {in_python}"
    )


def _read(library: Any, table: str) -> Iterator[Entry]:
    """Yield the entries of a table of run.c, which ends with one that has no name."""
    entry = ctypes.pointer(_CEntry.in_dll(library, table))
    index = 0
    while entry[index].name is not None:
        yield Entry(
            entry[index].type.decode(), entry[index].name.decode(), int(entry[index].number)
        )
        index += 1


TABLES = {
    "step_entries": (
        *(Entry(kind, name, getattr(CStep, name).offset) for name, kind in C_TYPE.items()),
        Entry("bytes", "step", ctypes.sizeof(CStep)),
    ),
    "band_entries": (
        *(Entry("int32_t", name, 4 * column) for column, name in enumerate(BAND)),
        Entry("bytes", "band", 4 * len(BAND)),
    ),
    "numbers": (
        *(Entry("enum", name, number) for number, name in enumerate(KINDS)),
        *(Entry("enum", name.upper(), bit) for name, bit in ROLES.items()),
        Entry("enum", "LANES", LANES),
        Entry("enum", "BLOCK", BLOCK),
        Entry("enum", "LAST", LAST),
        Entry("enum", "REST_BITS", REST_STEPS.bit_length() - 1),
    ),
}
"""What run.c must say, by the name of its table."""
