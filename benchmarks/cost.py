"""What a workload will take on 1 to 1,000 devices, before it is run: `python -m benchmarks.cost`.

Hours are images over measured rates. The assumptions:

- Training is data parallel. The devices share the recipe's batch, as those of `benchmarks.train` do, at
  least an image each; with --batch-per-device each takes it whole, so that an epoch has fewer steps.
  After each step the gradients go around a ring: 2 (D - 1) / D times the bytes of the weights over
  --bandwidth (Patarasuk and Yuan 2009), while nothing else is done.
- A technique runs on one device, and is evaluated there. D devices take as many techniques at once: the
  sweep lasts as long as its share, at least as long as its longest technique (Amdahl 1967).
- What is between is not counted: reading of images that is slower than the device, waiting for a queue.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.baseline import fitted
from benchmarks.gate.history import read_history
from benchmarks.workloads import Workload, read_data, resolve
from compression.accounting import dense_bytes
from compression.errors import CompressionError
from compression.training import AnySplit, Recipe, fit

PROBE_STEPS = 3


@dataclass(frozen=True, slots=True)
class Rates:
    """What was measured on one device; `techniques`: seconds of each, and its file's bytes."""

    train_images_per_s: float
    evaluate_images_per_s: float
    checkpoint_bytes: int
    techniques: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no time can be computed from."""
        for name in ("train_images_per_s", "evaluate_images_per_s", "checkpoint_bytes"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
                raise CompressionError(f"rates: {name} must be a positive number, found {value!r}")


@dataclass(frozen=True, slots=True)
class Work:
    """How much is to be done: images of each part, and epochs of training, 0 for none."""

    train_images: int
    test_images: int
    calibration_images: int
    epochs: int
    batch_size: int


def training_hours(
    work: Work, rates: Rates, devices: int, *, bandwidth: float, divide: bool = False
) -> float:
    """Return the hours of the baseline's training; `bandwidth` in bytes per second and device.

    >>> work = Work(3_600_000, 1, 1, epochs=1, batch_size=100)
    >>> training_hours(work, Rates(1_000, 1_000, 10**8), 1, bandwidth=1e9)
    1.0
    """
    per_device = work.batch_size / devices if divide else work.batch_size
    steps = math.ceil(work.train_images / (per_device * devices))
    reduce_s = 2 * (devices - 1) / devices * rates.checkpoint_bytes / bandwidth
    return work.epochs * steps * (max(1.0, per_device) / rates.train_images_per_s + reduce_s) / 3600


def estimate(
    work: Work, rates: Rates, devices: Sequence[int], *, bandwidth: float, divide: bool = False
) -> list[tuple[str, float, list[float]]]:
    """Return rows of a part's name, its files in GB, and its hours on each number of devices."""
    training = [
        training_hours(work, rates, count, bandwidth=bandwidth, divide=divide) for count in devices
    ]
    calibration = work.calibration_images / rates.evaluate_images_per_s / 3600
    evaluation = work.test_images / rates.evaluate_images_per_s / 3600
    weights = rates.checkpoint_bytes / 1e9
    # While it trains: the weights, their momentum, and the weights of the file that it leaves.
    rows = [("baseline", 3 * weights if work.epochs else weights, training)]
    rows.append(("calibration", 0.0, [calibration] * len(devices)))
    alone = {name: s / 3600 + evaluation for name, (s, _) in rates.techniques.items()}
    alone = {"evaluation": evaluation, **alone}
    sizes = {name: size / 1e9 for name, (_, size) in rates.techniques.items()}
    rows += [(name, sizes.get(name, 0.0), [hours] * len(devices)) for name, hours in alone.items()]
    together = [max(max(alone.values()), sum(alone.values()) / count) for count in devices]
    total = [a + b for a, b in zip(training, together, strict=True)]
    return [*rows, ("all", sum(gb for _, gb, _ in rows), total)]


def read_rates(path: Path, workload: str, train_rate: float | None = None) -> Rates:
    """Return the rates that a file holds: those of `Rates`, or a saved run of the workload.

    CompressionError where it is damaged, of another workload, or lacks a rate.
    """
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CompressionError(f"--rates {path}: cannot be read ({error})") from error
    if isinstance(known, dict) and "benchmarks" in known:
        return _rates_of_run(path, workload, train_rate)
    fields = set(Rates.__dataclass_fields__)
    if not isinstance(known, dict) or not set(known) <= fields or len(known) < len(fields) - 1:
        raise CompressionError(
            f"--rates {path}: expected a saved run, or an object of {', '.join(sorted(fields))}"
        )
    return Rates(**known)


def _rates_of_run(path: Path, workload: str, train_rate: float | None) -> Rates:
    history = read_history(path)
    if history.suite.get("workload") != workload:
        raise CompressionError(
            f"--rates {path}: a run of workload {history.suite.get('workload')}, not of {workload}"
        )
    seconds, sizes, evaluated, trained = {}, {}, [], [train_rate] if train_rate else []
    for entry in history.entries.values():
        facts = entry.get("extra_info", {})
        match facts.get("metric"):
            case "cost":
                seconds[facts["technique"]] = facts["seconds"]
            case "size":
                sizes[facts["technique"]] = facts["stored_bytes"]
            case "accuracy":
                evaluated.append(facts["total"] / entry["stats"]["min"])
            case "training":
                trained.append(facts["images_per_s"])
    needed = {"accuracy": evaluated, "size of the baseline": sizes.get("baseline")}
    needed["training (-m training), and --train-rate is not given"] = trained
    if missing := [name for name, found in needed.items() if not found]:
        raise CompressionError(f"--rates {path}: the run has no {', no '.join(missing)}")
    rows = {name: (s, sizes.get(name, 0)) for name, s in seconds.items() if name != "baseline"}
    return Rates(trained[0], sorted(evaluated)[len(evaluated) // 2], sizes["baseline"], rows)


def probe(workload: Workload, images: AnySplit, device: torch.device) -> Rates:
    """Return rates by a few steps and a few evaluations of the workload's untrained network."""
    recipe: Recipe = workload.recipe_on(device)
    count = min(recipe.batch_size, len(images))
    model, batch = workload.network().to(device), images.take(count).to(device)
    short = {"epochs": 1, "coarse_sizes": (), "views": 0, "batch_size": count}
    once = Recipe(**{**asdict(recipe), **short})
    fit(model, batch, once, loss=workload.loss)  # which chooses algorithms
    train_s = _seconds(lambda: fit(model, batch, once, loss=workload.loss), device)
    inputs = batch.inputs(slice(None))
    with torch.no_grad():
        model.eval()(inputs)
        evaluate_s = _seconds(lambda: model(inputs), device)
    return Rates(count / train_s, count / evaluate_s, dense_bytes(model))


def _seconds(work: Any, device: torch.device) -> float:
    times = []
    for _ in range(PROBE_STEPS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)


def render(rows: Sequence[tuple[str, float, list[float]]], devices: Sequence[int]) -> str:
    """Return the table of `estimate`, at most 100 columns wide."""
    head = ["hours on devices", "GB of files", *map(str, devices)]
    body = [[name, f"{gb:.3g}", *(f"{h:.3g}" for h in hours)] for name, gb, hours in rows]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = []
    for name, *numbers in [head, *body]:
        cells = [number.rjust(w) for number, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]))
    if len(lines[0]) > 100:
        raise CompressionError(
            f"--devices: {len(devices)} numbers do not fit 100 columns; give fewer"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    options = _options().parse_args(arguments)
    try:
        print(_table(options))
    except CompressionError as error:
        raise SystemExit(str(error)) from error


def _table(options: argparse.Namespace) -> str:
    devices = _counts(options.devices)
    if options.bandwidth <= 0:
        raise CompressionError(f"--bandwidth must be positive, found {options.bandwidth:g}")
    workload, place = resolve(options.workload, Path.cwd()), torch.device(options.device)
    data = read_data(workload, options.data_root)
    workload = fitted(workload, data)
    rates = (
        probe(workload, data.train, place)
        if options.rates is None
        else read_rates(options.rates, workload.name, options.train_rate)
    )
    recipe = workload.recipe_on(place)
    work = Work(
        options.train_images or len(data.train),
        options.test_images or len(data.test),
        workload.calibration_images,
        0 if workload.trained else recipe.epochs,
        recipe.batch_size,
    )
    divide = not options.batch_per_device
    rows = estimate(work, rates, devices, bandwidth=options.bandwidth * 1e9, divide=divide)
    about = (
        f"{workload.name}: {work.train_images:,} images, {work.epochs} epochs, batch {work.batch_size}"
        f"{' in all' if divide else ' per device'}, {options.bandwidth:g} GB/s each\n"
        f"one device: {rates.train_images_per_s:,.0f} images/s trained, "
        f"{rates.evaluate_images_per_s:,.0f} evaluated"
    )
    return f"{about}\n{render(rows, devices)}"


def _counts(text: str) -> list[int]:
    counts = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(counts) < 1:
        raise CompressionError(f"--devices: expected numbers from 1 with commas, found {text!r}")
    return counts


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks.cost")
    parser.add_argument("--workload", default="digits", metavar="NAME|package.module:attribute")
    parser.add_argument("--devices", default="1,8,64,1000", metavar="N,N,...")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="that is probed")
    parser.add_argument("--data-root", type=Path, metavar="DIR")
    parser.add_argument(
        "--rates", type=Path, metavar="FILE", help="a saved run, or rates; no probe"
    )
    parser.add_argument("--train-rate", type=float, metavar="IMAGES/S", help="that a run lacks")
    parser.add_argument(
        "--train-images", type=int, metavar="N", help="of the whole, where DIR is a part"
    )
    parser.add_argument("--test-images", type=int, metavar="N")
    parser.add_argument("--bandwidth", type=float, default=25.0, metavar="GB/S", help="per device")
    parser.add_argument(
        "--batch-per-device",
        action="store_true",
        help="the recipe's batch on each device; else they share it, as under torchrun",
    )
    return parser


if __name__ == "__main__":
    main()
