"""Facts: what a benchmark found, for the JSON, the table, the figures and the gate."""

import base64
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Facts = Mapping[str, Any]

PROPERTY = "facts"


def record(benchmark: Any, request: Any, **facts: Any) -> None:
    """Attach `facts` to the benchmark's JSON entry and to the test's report.

    The report reaches the controller of xdist, where benchmarks are disabled.
    """
    for name, value in facts.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"fact {name} must be finite, found {value}")
        _check_plain(name, value)
    benchmark.extra_info.update(facts)
    request.node.user_properties.append((PROPERTY, facts))


def facts_of(reports: Iterable[Any]) -> list[Facts]:
    """Return the facts in pytest's reports of finished tests, in order."""
    return [
        facts
        for report in reports
        for name, facts in getattr(report, "user_properties", ())
        if name == PROPERTY and report.when == "call"
    ]


def encode_images(correct: Tensor) -> str:
    """Return a bool an image as text: packed, deflated, base64."""
    packed = np.packbits(correct.cpu().numpy(), bitorder="little")
    return base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode()


def decode_images(text: str, total: int) -> Tensor:
    """Return the bool an image that encode_images wrote; ValueError where it is damaged."""
    try:
        packed = np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), np.uint8)
    except zlib.error as error:
        raise ValueError(f"damaged record of the correct images ({error})") from error
    if len(packed) != -(-total // 8):
        raise ValueError(f"expected a record of {total} images, found {len(packed)} bytes")
    return torch.from_numpy(np.unpackbits(packed, count=total, bitorder="little").astype(bool))


def _check_plain(name: str, value: Any) -> None:
    plain = (str, int, float, bool, type(None), list, dict)
    if not isinstance(value, plain):
        raise TypeError(f"fact {name} must be plain JSON, found {type(value).__name__}")
