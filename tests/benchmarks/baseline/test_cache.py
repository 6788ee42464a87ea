"""Each bit of what is cached is checked; a cache that cannot be written ends no training."""

import errno
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from safetensors.torch import save_file

from benchmarks.baseline import cache as files
from benchmarks.baseline import cache_path, keep_baseline, training, weights_fingerprint
from benchmarks.baseline import resume as resuming
from benchmarks.baseline.cache import (
    RESUMABLE_S,
    evict,
    holds_weights,
    read_checked,
    write_checked,
    write_weights,
)
from compression.errors import CompressionError
from tests.support.nets import RECIPE, residual
from tests.support.workloads import CPU, TINY, tiny_data, train_baseline


def flip_bit(path: Path, bit: int) -> bytes:
    whole = bytearray(path.read_bytes())
    whole[bit // 8] ^= 1 << bit % 8
    return bytes(whole)


def test_one_flipped_bit_anywhere_in_cached_weights_is_found(tmp_path: Path) -> None:
    path, damaged = tmp_path / "whole", tmp_path / "damaged"
    write_weights(path, residual().state_dict())
    assert holds_weights(path)
    size = 8 * path.stat().st_size
    header = 8 * (8 + int.from_bytes(path.read_bytes()[:8], "little"))
    drawn = random.Random(0)
    for bit in [*drawn.sample(range(header), 150), *drawn.sample(range(header, size), 300)]:
        damaged.write_bytes(flip_bit(path, bit))
        assert not holds_weights(damaged), bit
    for end in (0, 7, 100, size // 8 - 1):
        damaged.write_bytes(path.read_bytes()[:end])
        assert not holds_weights(damaged)
    damaged.write_bytes(path.read_bytes() + b"\0")
    assert not holds_weights(damaged)


def test_every_flipped_bit_of_a_resume_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_checked(path, b"epoch 3")
    assert read_checked(path) == b"epoch 3"
    for bit in range(8 * path.stat().st_size):
        damaged = tmp_path / "damaged"
        damaged.write_bytes(flip_bit(path, bit))
        assert read_checked(damaged) is None, bit


def damage_flip(path: Path) -> None:
    path.write_bytes(flip_bit(path, 8 * path.stat().st_size - 77))


def damage_unchecked(path: Path) -> None:
    save_file(residual(seed=9).state_dict(), path)  # as caches were before they were checked


@pytest.mark.parametrize("damage", [damage_flip, damage_unchecked])
def test_a_damaged_baseline_is_said_and_made_again(damage: Callable[[Path], None]) -> None:
    first, _ = train_baseline()
    path = cache_path(TINY, tiny_data(), CPU)
    damage(path)
    again, lines = train_baseline()
    assert "damaged, its checksum is not that of its bytes; the baseline is made again" in lines[0]
    assert weights_fingerprint(again) == weights_fingerprint(first)
    assert holds_weights(path)
    damage(path)
    keep_baseline(first, TINY, tiny_data(), CPU)
    assert holds_weights(path), "what is kept takes a damaged file's place"


def test_a_damaged_resume_file_is_said_and_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "RESUME_EVERY_S", -1.0)
    whole, resume = training.train(TINY, tiny_data(), CPU), tmp_path / "x.resume"
    training.train(TINY, tiny_data(), CPU, resume=resume)
    resume.write_bytes(flip_bit(resume, 4 * resume.stat().st_size))
    lines: list[str] = []
    found = training.train(TINY, tiny_data(), CPU, resume=resume, report=lines.append)
    assert "x.resume: damaged, its checksum" in lines[0]
    assert "training from the start" in lines[0]
    assert weights_fingerprint(found) == weights_fingerprint(whole)


def failing_os_call(name: str, kind: int, when: Callable[[str], bool]) -> Callable[..., Any]:
    real = getattr(os, name)

    def refused(*arguments: Any, **options: Any) -> Any:
        if when(str(arguments[-1])):
            raise OSError(kind, os.strerror(kind))
        return real(*arguments, **options)

    return refused


def test_a_read_only_cache_that_holds_the_baseline_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = train_baseline()

    def read_only(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "FileLock", read_only)
    monkeypatch.setattr(Path, "mkdir", read_only)
    found, lines = train_baseline()
    assert lines == []
    assert weights_fingerprint(found) == weights_fingerprint(model)
    other = replace(TINY, recipe=replace(RECIPE, seed=4))
    with pytest.raises(
        CompressionError, match=r"cannot be cached \(Read-only file system\); set XDG"
    ):
        train_baseline(other)


def test_a_disk_that_is_full_for_a_resume_file_ends_no_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "RESUME_EVERY_S", -1.0)
    full = failing_os_call("replace", errno.ENOSPC, lambda path: path.endswith(".resume"))
    monkeypatch.setattr(os, "replace", full)
    _, lines = train_baseline()
    said = [line for line in lines if "disk full" in line]
    assert len(said) == 1, "once, of two epochs"
    assert "training goes on, and a kill would cost all of it" in said[0]
    assert holds_weights(cache_path(TINY, tiny_data(), CPU))


def test_the_resume_file_makes_room_for_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resuming, "RESUME_EVERY_S", -1.0)
    path = cache_path(TINY, tiny_data(), CPU)
    resume = path.with_suffix(".resume")
    full = failing_os_call(
        "replace", errno.ENOSPC, lambda name: name.endswith(".safetensors") and resume.exists()
    )
    monkeypatch.setattr(os, "replace", full)
    train_baseline()
    assert holds_weights(path)
    assert not resume.exists()
    path.unlink()
    monkeypatch.setattr(os, "replace", failing_os_call("replace", errno.ENOSPC, lambda _: True))
    with pytest.raises(CompressionError, match="disk full"):
        train_baseline()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of five networks of 100 bytes, 1 used longest ago, and one of another name."""
    for name in ("net-1", "net-2", "net-3", "net-4", "net-5", "net-224-0"):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(100))
        path.with_suffix(".json").write_text("{}")
        os.utime(path, (0, int(name[-1])))
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.safetensors"))


def test_what_was_used_longest_ago_goes(folder: Path) -> None:
    os.utime(folder / "net-1.safetensors")
    evict(folder, "net", 300)
    assert names(folder) == ["net-1", "net-224-0", "net-4", "net-5"]
    assert sorted(path.stem for path in folder.glob("*.json")) == names(folder)
    assert not list(folder.glob("*.lock"))


def test_what_is_locked_or_cannot_be_deleted_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "net-2.safetensors":
            raise PermissionError(path)
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    with FileLock(folder / "net-1.safetensors.lock"):
        evict(folder, "net", 300)
    assert names(folder) == ["net-1", "net-2", "net-224-0", "net-5"]


def test_what_a_training_goes_on_from_stays_for_a_month(folder: Path) -> None:
    now = time.time()
    for name, age_s in {"new": 0.0, "old": 2 * RESUMABLE_S, "running": 2 * RESUMABLE_S}.items():
        path = folder / f"net-{name}.resume"
        path.write_bytes(bytes(100))
        os.utime(path, (now, now - age_s))
    with FileLock(folder / "net-running.safetensors.lock"):
        evict(folder, "net", 0)
    assert sorted(p.stem for p in folder.glob("*.resume")) == ["net-new", "net-running"]
    assert names(folder) == ["net-224-0"]
