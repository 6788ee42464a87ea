"""A technique's file, and what it took to make it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline import Baseline, weights_fingerprint
from benchmarks.machine.cost import Meter
from benchmarks.techniques import Technique
from compression.accounting import count_macs, count_nonzeros, count_parameters, dense_bytes
from compression.layers import COMPRESSIBLE, left_out
from compression.storage import contents, load, save
from compression.training import TOP_1


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """A technique's file and what it took to make it; every metric repeats `facts`."""

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


def compress(technique: Technique, baseline: Baseline, path: Path) -> Artifact:
    """Compress the baseline, and store it at `path`; AssertionError where that changed the baseline."""
    before = weights_fingerprint(baseline.model)
    epochs: list[float] = []
    with Meter(baseline.device) as meter:
        model = technique.how(replace(baseline, on_epoch=epochs.append, meter=meter)).eval()
    if weights_fingerprint(baseline.model) != before:
        raise AssertionError(f"{technique} changed the baseline that it was given")
    save(model, path, entropy_coded=technique.entropy_coded)
    workload = baseline.workload
    per_epoch = "epoch_accuracy" if workload.metric == TOP_1 else "epoch_scores"
    return Artifact(
        path=path,
        factory=workload.student if technique.student else workload.network,
        fingerprint=weights_fingerprint(model),
        seconds=meter.seconds,
        peak_memory_bytes=meter.peak_bytes,
        account=_account(model, baseline, path),
        facts=_facts(technique, model, baseline) | ({per_epoch: epochs} if epochs else {}),
    )


def _account(model: nn.Module, baseline: Baseline, path: Path) -> dict[str, Any]:
    """Return what the size row records of the file and its network."""
    return {
        "stored_bytes": path.stat().st_size,
        "contents": contents(path),
        "dense_bytes": dense_bytes(model),
        "parameters": count_parameters(model),
        "nonzeros": count_nonzeros(model),
        "macs": count_macs(model, baseline.data.validation.inputs(slice(0, 1))),
    }


def _facts(technique: Technique, model: nn.Module, baseline: Baseline) -> dict[str, Any]:
    """Return what every metric of the technique records."""
    claim = technique.claim_on(baseline.device.type)
    return {
        "technique": technique.name,
        "family": technique.family or technique.name,
        "device": baseline.device.type,
        "workload": baseline.workload.name,
        "data": baseline.data.title,
        "simulated": claim.kind == "simulated",
        "size_only": claim.kind == "size only",
        "in_float": _layers_in_float(model) if claim.kernels else [],
        "left_out": sorted(left_out(model)),
        **technique.facts,
    }


def _layers_in_float(model: nn.Module) -> list[str]:
    return [name for name, layer in model.named_modules() if isinstance(layer, COMPRESSIBLE)]
