"""The smaller networks of each engine: made of one baseline, stored, loaded back, evaluated, timed."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.baseline import Baseline
from benchmarks.calibration import calibration
from benchmarks.facts.record import encode_images
from benchmarks.peers.pruning import OURS, REMOVERS, missing_torch_pruning
from benchmarks.pipelines import example, recalibrate, train_smaller
from benchmarks.timing.batch import repeat_images
from benchmarks.timing.race import race
from compression.accounting import count_macs, count_nonzeros, count_parameters
from compression.integer import deploy
from compression.quantization import quantize_static
from compression.storage import load, save
from compression.training import BATCH_SIZES, correct_images

BUDGETS = (0.5, 0.25)
BUDGET_S = 150.0
SHORT_S = 0.1
"""A shorter prediction is repeated each time it is its turn; the median counts."""
REPEATS = 3


Stage = Literal["", "tuned", "int8"]


@dataclass(frozen=True, slots=True)
class Row:
    """A network of the table: an engine's, at a share of the baseline's multiply-accumulates.

    Its norms are recalibrated; then it is trained by the workload's recipe; then it is quantized.
    """

    engine: str = ""
    macs: float = 1.0
    stage: Stage = ""

    def __str__(self) -> str:
        """Return the technique's name, which is the test's id."""
        parts = (self.engine, f"{100 * self.macs:.0f}", self.stage)
        return "-".join(part for part in parts if part) if self.engine else "baseline"

    @property
    def missing(self) -> str | None:
        """What the row's engine lacks here, None where it can run."""
        return missing_torch_pruning() if self.engine not in ("", OURS) else None


BASELINE = Row()
MADE = [Row(engine, macs) for macs in BUDGETS for engine in REMOVERS]
STAGES: tuple[Stage, ...] = ("", "tuned", "int8")
ROWS = [
    BASELINE,
    *(Row(engine, macs, stage) for macs in BUDGETS for stage in STAGES for engine in REMOVERS),
]
TIMED = [row for row in ROWS if row == BASELINE or row.stage]
"""What a prediction takes does not depend on the values: rows that are trained stand for all."""


def rivals(row: Row) -> list[Row]:
    """Return the rows that one of ours must not be worse than: none for another's."""
    if row.engine != OURS:
        return []
    others = [Row(engine, row.macs, row.stage) for engine in REMOVERS if engine != OURS]
    return [other for other in others if other.missing is None]


@dataclass(frozen=True, slots=True)
class Stored:
    """A row's file, what loads it, and the seconds that writing it took."""

    path: Path
    load: Callable[[], nn.Module]
    seconds: float


class Contest:
    """Each row's network, file, evaluation and race, made once."""

    def __init__(self, baseline: Baseline, folder: Path) -> None:
        """Make nothing yet."""
        self.baseline, self.folder = baseline, folder
        self.removed = cache(self._remove)
        self._trained = cache(self._train)
        self.stored = cache(self._store)
        self.evaluation = cache(self._evaluate)
        self.times = cache(self._race)

    def account(self, row: Row) -> dict[str, Any]:
        """Return bytes of the file, and what its network holds and computes."""
        image = example(self.baseline)
        network = self._network(row)
        return {
            "stored_bytes": self.stored(row).path.stat().st_size,
            "baseline_stored_bytes": self.stored(BASELINE).path.stat().st_size,
            "parameters": count_parameters(network),
            "nonzeros": count_nonzeros(network),
            "macs": count_macs(network, image),
        }

    def _remove(self, engine: str, macs: float) -> tuple[nn.Module, float]:
        """Return an engine's network, its norms recalibrated, and the seconds of the removal."""
        b = self.baseline
        started = time.perf_counter()
        smaller = REMOVERS[engine](b.model, example(b), macs)
        seconds = time.perf_counter() - started
        return recalibrate(b, smaller), seconds

    def _train(self, engine: str, macs: float) -> nn.Module:
        return train_smaller(self.baseline, self.removed(engine, macs)[0])

    def _network(self, row: Row) -> nn.Module:
        """Return a row's network in float."""
        if row == BASELINE:
            return self.baseline.model
        of = (row.engine, row.macs)
        return self._trained(*of) if row.stage else self.removed(*of)[0]

    def _store(self, row: Row) -> Stored:
        """Write a row's file, an INT8 network quantized before the clock starts."""
        network, path = self._network(row), self.folder / f"{row}.safetensors"
        ours = row.engine in ("", OURS)
        # Only our networks note their widths: another's is built anew as a copy of itself.
        factory = self.baseline.workload.network if ours else partial(copy.deepcopy, network)
        write: Callable[[nn.Module, Path], object] = save
        read: Callable[[], nn.Module] = partial(load, path, factory)
        if row.stage == "int8":
            network = quantize_static(network, list(calibration(self.baseline)))
        elif not ours:  # as Torch-Pruning's README says
            path = path.with_suffix(".pt")
            write, read = torch.save, partial(torch.load, path, weights_only=False)
        started = time.perf_counter()
        write(network, path)
        return Stored(path, read, time.perf_counter() - started)

    def predictor(self, row: Row, images: Tensor) -> nn.Module:
        """Return what predicts images like these from a row's file."""
        network = self.stored(row).load()
        if row.stage == "int8":
            return deploy(network, images)
        return network.eval().to(memory_format=torch.channels_last)

    def _evaluate(self, row: Row) -> dict[str, Any]:
        """Predict every test image from the file."""
        test = self.baseline.data.test
        images = test.inputs(slice(0, BATCH_SIZES[self.baseline.device.type]))
        predictor = self.predictor(row, images)
        started = time.perf_counter()
        correct = correct_images(predictor, test)
        return {
            "seconds": time.perf_counter() - started,
            "correct": int(correct.sum()),
            "total": len(test),
            "correct_images": encode_images(correct),
        }

    def _race(self, batch_size: int) -> dict[Row, tuple[float, ...]]:
        """Return the seconds of every timed row that can run, round by round."""
        images = repeat_images(self.baseline.data.validation, batch_size).inputs(slice(None))
        racing = {str(row): row for row in TIMED if row.missing is None}
        competitors = {
            name: partial(_seconds, self.predictor(row, images), images)
            for name, row in racing.items()
        }
        with torch.inference_mode():
            found = race(competitors, budget_s=BUDGET_S)
        return {racing[name]: times for name, times in found.items()}


def _seconds(predict: nn.Module, images: Tensor) -> float:
    """Time a prediction, after one that wakes threads and fills caches."""
    repeats = REPEATS if _once(predict, images) < SHORT_S else 1
    return sorted(_once(predict, images) for _ in range(repeats))[repeats // 2]


def _once(predict: nn.Module, images: Tensor) -> float:
    started = time.perf_counter()
    predict(images)
    return time.perf_counter() - started
