"""Records the facts of a benchmark, for the JSON, the table, the figures and the gate."""

import base64
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.facts.schema import check_fact

Facts = Mapping[str, Any]

PROPERTY = "facts"
ENTRY = "benchmark"
"""What pytest-benchmark would save of a test, were it enabled in a worker of xdist."""
_NAMES = ("name", "fullname", "group", "param", "params")


def record(benchmark: Any, request: Any, **facts: Any) -> None:
    """Attach `facts` to the benchmark's JSON entry and to the test's report.

    The report reaches the controller of xdist, where benchmarks are disabled. Scalars of numpy and
    torch become plain numbers. ValueError names a fact that FACTS lacks or that is not finite,
    TypeError one that is no JSON, at any depth, or of another type than FACTS says.
    """
    plain = {name: _plain(name, value) for name, value in facts.items()}
    for name, value in plain.items():
        check_fact(name, value)
    benchmark.extra_info.update(plain)
    request.node.user_properties.append((PROPERTY, plain))
    if not getattr(benchmark, "enabled", True):
        told = {name: getattr(benchmark, name) for name in _NAMES}
        told["times_s"] = getattr(benchmark, "replayed", [])
        request.node.user_properties.append((ENTRY, told))


def facts_of(reports: Iterable[Any]) -> list[Facts]:
    """Return the facts in pytest's reports of finished tests, in order."""
    return [
        facts
        for report in reports
        for name, facts in getattr(report, "user_properties", ())
        if name == PROPERTY and report.when == "call"
    ]


def finished_tests(terminalreporter: Any) -> list[Any]:
    """Return the reports of the run's tests that passed or failed, in that order."""
    return [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]


def encode_images(correct: Tensor) -> str:
    """Return one bool per image as text: packed, deflated, base64."""
    packed = np.packbits(correct.cpu().numpy(), bitorder="little")
    return base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode()


def decode_images(text: object, total: int) -> Tensor:
    """Return the bools, one per image, that encode_images wrote; ValueError where it is damaged."""
    if not isinstance(text, str):
        raise ValueError(f"damaged record of the correct images (a {type(text).__name__})")
    expected = -(-total // 8)
    inflate = zlib.decompressobj()
    try:
        # One byte more than expected shows that there are more, however many a few kilobytes claim.
        packed = inflate.decompress(base64.b64decode(text, validate=True), expected + 1)
    except (zlib.error, ValueError) as error:  # ValueError: no base64
        raise ValueError(f"damaged record of the correct images ({error})") from error
    if len(packed) != expected or not inflate.eof or inflate.unused_data:
        raise ValueError(f"expected a record of {total} images, found {len(packed)} bytes or more")
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=total, bitorder="little")
    return torch.from_numpy(bits.astype(bool))


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic) or (
        isinstance(value, Tensor | np.ndarray) and value.ndim == 0
    ):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"fact {name} must be finite, found {value}")
    if isinstance(value, list | tuple):
        return [_plain(f"{name}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, dict):
        return {str(key): _plain(f"{name}.{key}", item) for key, item in value.items()}
    if not isinstance(value, str | int | float | bool | None):
        raise TypeError(f"fact {name} must be plain JSON, found {type(value).__name__}")
    return value
