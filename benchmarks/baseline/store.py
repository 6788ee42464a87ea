"""The trained baseline: trained once, cached under the hash of its recipe, loaded with weights only."""

import copy
import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.baseline.cache import LOCK_TIMEOUT_S, holds_weights, lock, write_weights
from benchmarks.baseline.checks import with_fitting_sizes
from benchmarks.baseline.data import Data
from benchmarks.baseline.fingerprints import training_fingerprint
from benchmarks.baseline.processes import decided_by_first, is_first
from benchmarks.baseline.resume import forget
from benchmarks.baseline.training import train
from benchmarks.baseline.workload import Workload, name_of
from benchmarks.machine.cost import Meter
from compression.errors import CheckpointError, CompressionError
from compression.paths import cache_folder
from compression.training import has_bfloat16, whole_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The trained network in eval mode, and its data on the same device.

    `on_epoch` hears the accuracy of a student on the validation images after each epoch. `meter`
    measures a technique: a training that was done before counts as what it took then. `note` hears how
    far a training is.
    """

    model: nn.Module
    data: Data
    workload: Workload
    device: torch.device
    on_epoch: Callable[[float], None] | None = None
    meter: Meter | None = None
    note: Callable[[str], object] = log.debug


def cache_path(workload: Workload, data: Data, device: torch.device) -> Path:
    """Return where the baseline of this recipe, code, data, torch and kind of device is cached."""
    recipe = workload.recipe_on(device)
    parts = [
        workload.recipe_fingerprint(device),
        training_fingerprint(workload, data, recipe),
        data.fingerprint(),
        device.type,
        recipe.precision if has_bfloat16(device) else "float32",
        torch.__version__,
    ]
    if device.type == "cpu":  # whose sums depend on them; xdist's workers on GPUs share one place
        parts.append(str(torch.get_num_threads()))
    name = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    return cache_folder() / "baselines" / f"{workload.name}-{name}.safetensors"


def trainable_workload(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload as it can be trained here.

    Coarse sizes that its network cannot take and pretrained weights that are not available are left
    out, and reported.
    """
    workload = with_fitting_sizes(workload, data, device, report)
    if holds_weights(cache_path(workload, data, device)):
        return workload
    return with_start(workload, device, report)


def with_start(
    workload: Workload, device: torch.device, report: Callable[[str], None] = log.info
) -> Workload:
    """Return the workload with its pretrained weights read, or without where they are not available.

    A baseline from random weights has another recipe, with its own fingerprint and place.
    """
    if workload.pretrained is None:
        return workload
    try:
        start = workload.initial_network(device)
    except (OSError, RuntimeError) as error:  # unreachable; or a download that is damaged
        if workload.trained:
            raise CompressionError(
                f"{workload.name} baseline: its weights are torchvision's, and are not available "
                f"({error}); pass them by --baseline CHECKPOINT"
            ) from error
        report(
            f"{workload.name} baseline: pretrained weights are not available ({error}); it starts from "
            "random weights"
        )
        return replace(workload, pretrained=None)
    again = partial(copy.deepcopy, start)  # a copy, since training works in place
    again.__qualname__ = name_of(workload.pretrained)  # type: ignore[attr-defined]
    return replace(workload, pretrained=again)


def obtain_baseline(
    workload: Workload,
    data: Data,
    device: torch.device,
    *,
    load: Callable[[Path, Callable[[], nn.Module]], nn.Module],
    report: Callable[[str], None] = log.info,
) -> nn.Module:
    """Return the workload's trained network, from the cache or by training it now.

    Safe under several processes (one trains, the others wait) and under kill -9 (the next run goes
    on after the last finished epoch). Each bit of what is cached is checked: a damaged file is made
    again, an intact one needs no folder that can be written. `report` receives a line per epoch with
    the time left.
    """
    path = cache_path(workload, data, device)
    make_baseline(path, workload, data, device, report=report)
    try:
        return load(path, workload.network).to(device).eval()
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete the file to train it again") from error


def make_baseline(
    path: Path,
    workload: Workload,
    data: Data,
    device: torch.device,
    *,
    sharded: bool = False,
    report: Callable[[str], None] = log.info,
) -> None:
    """Train the workload's network into `path`, its `cache_path`, unless it is there.

    Under torch.distributed all processes call it, and train together; the first reads and writes.
    """
    with ExitStack() as held:

        def is_made() -> bool:
            if holds_weights(path):
                return True
            held.enter_context(lock(path, report=report))
            return holds_weights(path)

        if not decided_by_first(f"{path.name} is made", is_made, LOCK_TIMEOUT_S):
            _train_into(path, workload, data, device, report, sharded=sharded)


def _train_into(
    path: Path,
    workload: Workload,
    data: Data,
    device: torch.device,
    report: Callable[[str], None],
    *,
    sharded: bool,
) -> None:
    if path.exists():
        report(
            f"{path}: damaged, its checksum is not that of its bytes; the baseline is made again"
        )
    resume = path.with_suffix(".resume")
    if workload.trained:
        report(f"{workload.name} baseline: the weights are given, and nothing is trained")
        model = workload.initial_network(device)
    else:
        model = train(workload, data, device, resume=resume, report=report, sharded=sharded)
    weights = whole_weights(model)
    if not is_first():
        return
    try:
        write_weights(path, weights)
    except CheckpointError:  # a full disk: the resume file is larger, and not needed any more
        if not resume.exists():
            raise
        forget(resume)
        write_weights(path, weights)
    forget(resume)


def keep_baseline(model: nn.Module, workload: Workload, data: Data, device: torch.device) -> Path:
    """Cache weights that `train` returned, unless some are cached; return their place."""
    path = cache_path(workload, data, device)
    with lock(path):
        if not holds_weights(path):
            write_weights(path, model.state_dict())
    return path
