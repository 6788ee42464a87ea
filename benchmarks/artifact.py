"""A case's file, and what making it took."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline import Baseline, weights_fingerprint
from benchmarks.machine.memory import PeakMemory
from benchmarks.techniques import Case
from compression.accounting import count_macs, count_nonzeros, count_parameters, dense_bytes
from compression.layers import COMPRESSIBLE, left_out
from compression.storage import contents, load, save
from compression.training import EpochReport, correct_images


@dataclass(frozen=True, slots=True, eq=False)
class Compressed:
    """A case's file and what making it took; `facts` are those that every metric repeats."""

    path: Path
    factory: Callable[[], nn.Module]
    fingerprint: str
    seconds: float
    peak_memory_bytes: int | None
    account: dict[str, Any]
    facts: dict[str, Any]

    def load(self, device: torch.device) -> nn.Module:
        """Return the model of the file."""
        return load(self.path, self.factory).to(device)


def compress(case: Case, baseline: Baseline, path: Path) -> Compressed:
    """Compress the baseline by a case, and store it at `path`; AssertionError if it was changed."""
    workload = baseline.workload
    before = weights_fingerprint(baseline.model)
    epochs: list[float] = []

    def on_epoch(epoch: EpochReport) -> None:
        epochs.append(correct_images(epoch.model, baseline.data.validation).float().mean().item())

    with PeakMemory(baseline.device) as memory:
        started = time.perf_counter()
        model = case.how(replace(baseline, on_epoch=on_epoch)).eval()
        seconds = time.perf_counter() - started
    if weights_fingerprint(baseline.model) != before:
        raise AssertionError(f"{case} changed the baseline that it was given")
    save(model, path, entropy_coded=case.entropy_coded)
    account = {
        "stored_bytes": path.stat().st_size,
        "contents": contents(path),
        "dense_bytes": dense_bytes(model),
        "parameters": count_parameters(model),
        "nonzeros": count_nonzeros(model),
        "macs": count_macs(model, baseline.data.validation.inputs(slice(0, 1))),
    }
    facts = {
        "technique": case.name,
        "family": case.family or case.name,
        "device": baseline.device.type,
        "workload": workload.name,
        "data": baseline.data.title,
        "simulated": baseline.device.type in case.simulated_on,
        "size_only": baseline.device.type in case.size_only_on,
        "in_float": _layers_in_float(model) if case.kernels else [],
        "left_out": sorted(left_out(model)),
        **case.facts,
        **({"epoch_accuracy": epochs} if epochs else {}),
    }
    return Compressed(
        path=path,
        factory=workload.student if case.student else workload.network,
        fingerprint=weights_fingerprint(model),
        seconds=seconds,
        peak_memory_bytes=memory.peak_bytes,
        account=account,
        facts=facts,
    )


def _layers_in_float(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, COMPRESSIBLE)]
