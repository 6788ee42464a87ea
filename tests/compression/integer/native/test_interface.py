"""The C structs and numbers are those of Python, or the library is refused by the name that differs."""

import importlib
import re
import shutil
from pathlib import Path

import pytest

from compression.errors import CompressionError
from compression.integer import lacking
from compression.integer.native import interface
from compression.integer.native.step import CStep

# By its name: the package's attribute `library` is the function.
built = importlib.import_module("compression.integer.native.library")


def test_they_agree_here() -> None:
    """Not skipped: a difference would read as an executor that the machine lacks."""
    assert "disagree" not in (lacking("native") or "")


def test_a_field_that_is_no_field_cannot_be_written() -> None:
    with pytest.raises(AttributeError, match="input_sacle"):
        CStep(input_sacle=1.0)


@pytest.mark.skipif(lacking("native") is not None, reason=str(lacking("native")))
@pytest.mark.parametrize(
    ("pattern", "changed", "said"),
    [
        (r"(X\(int32_t, runs\).*\n)(.*\n)(?=.*band_count)", r"\2\1",
         "found int32_t groups at byte 212 in step.h, expected int32_t runs at byte 212"),
        (r"X\(float, input_scale\)", "X(int32_t, input_scale)",
         "found int32_t input_scale at byte 272 in step.h, expected float input_scale at byte 272"),
        (r"X\(int64_t, plane\) ", "X(int64_t, planes) ", "found int64_t planes at byte 192"),
        (r"X\(float, value_ratio\)", "X(float, value_ratio) X(int32_t, more)",
         "found int32_t more at byte 284 in step.h, expected struct step of 288 bytes"),
        (r"X\(MAXIMUM\) X\(MEAN\)", "X(MEAN) X(MAXIMUM)", "found MEAN = 4 in step.h, expected MAX"),
        (r" X\(ATTENTION\)", " X(ATTENTION) X(MORE)", "found MORE = 14 in step.h, expected INPUT = 1"),
        (r"LANES = 16, ROWS", "LANES = 8, ROWS", "found LANES = 8 in step.h, expected LANES = 16"),
        (r"X\(int32_t, first_run\)", "X(int64_t, first_run)", "found int64_t first_run at byte 8"),
    ],
    ids=["swapped", "type", "renamed", "one more", "renumbered", "a kind more", "number", "band"],
)  # fmt: skip
def test_a_changed_struct_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, changed: str, said: str
) -> None:
    sources = tmp_path / "sources"
    shutil.copytree(Path(built.__file__).parent, sources)
    text = (sources / "step.h").read_text()
    other = re.sub(pattern, changed, text, count=1)
    assert other != text
    (sources / "step.h").write_text(other)
    # The tables alone: the kernels would not compile, and take seconds where they do.
    run = re.sub(r'#include "(?!step)\w+\.h"', "", (sources / "run.c").read_text())
    (sources / "run.c").write_text(run[: run.index("/* A step on the images from")])
    monkeypatch.setattr(built, "__file__", str(sources / "library.py"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(built.MORE_FLAGS, "-O0 -w")
    with pytest.raises(CompressionError, match=re.escape(said)) as refused:
        built.library.__wrapped__()
    assert "C and Python disagree" in str(refused.value)


def test_every_table_of_c_is_compared() -> None:
    """A table that run.c exports and nobody reads would let a struct drift."""
    run = (Path(built.__file__).parent / "run.c").read_text()
    assert set(re.findall(r"const struct entry (\w+)\[\]", run)) == set(interface.TABLES)
