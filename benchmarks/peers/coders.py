"""Coders of a network's weights within an error budget: ours, and NNC's reference (ISO/IEC 15938-17).

Each search finds the coder's smallest file whose weights are off by at most the budget: the squared
error of all weights of two or more dimensions over their squared norm.
"""

import contextlib
import importlib.util
import io
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.clustering import share_weights
from compression.layers import copy_model
from compression.quantization import round_vectors
from compression.storage import load, save

NNCODEC_QP = range(-40, -16)  # its step sizes: 2^(qp / 4), about
BISECTIONS = 8
BIT_COSTS = (1e-5, 3.0)
NUM_CLUSTERS = 128


@dataclass(frozen=True, slots=True)
class CodedFile:
    """A file within the budget: its size, its error, and the seconds to write and to read it."""

    stored_bytes: int
    error: float
    encode_s: float
    decode_s: float
    setting: str


def missing_nncodec() -> str | None:
    """Say what nncodec lacks here, None where it can run."""
    if importlib.util.find_spec("nncodec") is not None:
        return None
    return "needs nncodec: pip install --no-deps nncodec (it asks for numpy 1, and runs on 2)"


def smallest(attempts: Iterable[CodedFile], budget: float) -> CodedFile | None:
    """Return the smallest of what keeps the budget, None where nothing does."""
    within_budget = [coded for coded in attempts if coded.error <= budget]
    return min(within_budget, key=lambda coded: coded.stored_bytes, default=None)


def by_compression(model: nn.Module, budget: float, folder: Path) -> Iterator[CodedFile]:
    """Yield files of ours, the price of a bit bisected towards the budget."""
    low, high = (math.log(cost) for cost in BIT_COSTS)
    for _ in range(BISECTIONS):
        cost = math.exp((low + high) / 2)
        coded = _by_compression(model, cost, folder / "model")
        yield coded
        low, high = ((low + high) / 2, high) if coded.error <= budget else (low, (low + high) / 2)


def by_nncodec(model: nn.Module, folder: Path) -> Iterator[CodedFile]:
    """Yield nncodec's files at each of its step sizes, with dependent quantization and without."""
    for use_dq in (True, False):
        for qp in NNCODEC_QP:
            yield _by_nncodec(model, qp, folder, use_dq=use_dq)


def _by_compression(model: nn.Module, bit_cost: float, path: Path) -> CodedFile:
    def encode() -> int:
        few = share_weights(model, num_clusters=NUM_CLUSTERS, bit_cost=bit_cost)
        return save(round_vectors(few), path, entropy_coded=True)

    stored_bytes, encode_s = _time(encode)
    again, decode_s = _time(lambda: load(path, lambda: copy_model(model)))
    error = _error(_weights(model.state_dict()), again.state_dict())
    return CodedFile(stored_bytes, error, encode_s, decode_s, f"bit_cost {bit_cost:.3g}")


def _by_nncodec(model: nn.Module, qp: int, folder: Path, *, use_dq: bool) -> CodedFile:
    from nncodec.nn import decode, encode

    state = {n: t.numpy() for n, t in model.state_dict().items() if t.is_floating_point()}
    options = {"qp": qp, "use_dq": use_dq, "verbose": False, "results": str(folder)}
    with contextlib.redirect_stdout(io.StringIO()):
        stream, encode_s = _time(lambda: encode(dict(state), args=options))
        decoded, decode_s = _time(lambda: decode(stream))
    again = {name: torch.as_tensor(array) for name, array in decoded.items()}
    error = _error(_weights(model.state_dict()), again)
    setting = f"qp {qp}, dependent quantization {'on' if use_dq else 'off'}"
    return CodedFile(len(stream), error, encode_s, decode_s, setting)


def _weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in state.items() if t.is_floating_point() and t.ndim >= 2}


def _error(weights: dict[str, Tensor], again: dict[str, Tensor]) -> float:
    lost = sum(float((again[n].double() - t.double()).square().sum()) for n, t in weights.items())
    return lost / sum(float(t.double().square().sum()) for t in weights.values())


def _time(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
