"""CASES: every promise the project makes, one row each; SWEEP: the points behind the figures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import Baseline
from benchmarks.machine.kernels import INTEGER_KERNELS
from compression.clustering import fine_tune_centroids, share_weights
from compression.distillation import distill
from compression.integer import PREFERRED, deploy, lacking
from compression.pruning import (
    fine_tune,
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
)
from compression.quantization import (
    cast,
    quantize_aware,
    quantize_dynamic,
    quantize_static,
    quantize_weights,
    round_vectors,
)
from compression.recalibration import recalibrate_batch_norm
from compression.semi_structured import SEMI_STRUCTURED_KERNELS, lower_semi_structured


@dataclass(frozen=True, slots=True)
class Target:
    """A file at most `size` of the baseline's, a drop at most `drop`, a speed-up at least."""

    size: float | None = None
    drop: float | None = None
    speed_up: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A technique by name, how the baseline becomes the compressed model, and its targets.

    `targets` go by workload; another workload is measured without. It is measured on `devices`. On
    those of `simulated_on` the arithmetic stands for kernels that do not run there, on those of
    `size_only_on` no kernel gains by it, so that it has no latency; elsewhere all of one of the sets
    `kernels` must be seen to run before one is claimed, and without them it is smaller only where it
    is `size_only_without`. `prepare` makes the file's model ready for inputs like the given ones;
    `entropy_coded` is how its file is stored.
    """

    name: str
    how: Callable[[Baseline], nn.Module]
    targets: Mapping[str, Target] = field(default_factory=dict)
    family: str = ""
    student: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    simulated_on: tuple[str, ...] = ()
    size_only_on: tuple[str, ...] = ()
    kernels: tuple[tuple[str, ...], ...] = ()
    size_only_without: bool = False
    prepare: Callable[[nn.Module, Tensor], nn.Module] = deploy
    channels_last: bool = False
    entropy_coded: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name, which is the test's id."""
        return self.name


def tuned(b: Baseline, model: nn.Module) -> nn.Module:
    """Fine-tune by the workload's recipe, zeros kept."""
    return fine_tune(model, b.data.train.take(b.workload.fine_tune_images), b.workload.fine_tune)


def retrained(b: Baseline, amount: float) -> nn.Module:
    """Prune globally, and train what is left by the workload's recipe for a sparse network."""
    pruned = prune_l1_global(b.model, amount=amount)
    recipe = b.workload.sparse or b.workload.fine_tune
    return fine_tune(pruned, b.data.train.take(b.workload.sparse_images), recipe)


def shared(b: Baseline, *, amount: float, bit_cost: float) -> nn.Module:
    """Prune, train, share weights at a price on bits, train what is shared, round the rest.

    Deep Compression's pipeline (Han et al. 2016, arXiv:1510.00149) with an entropy-constrained
    codebook.
    """
    few = share_weights(retrained(b, amount), num_clusters=32, bit_cost=bit_cost)
    images = b.data.train.take(b.workload.fine_tune_images)
    recipe = replace(b.workload.fine_tune, epochs=1)
    return round_vectors(fine_tune_centroids(few, images, recipe))


def recalibrated(b: Baseline, model: nn.Module) -> nn.Module:
    """Estimate batch norm's statistics again, without training."""
    return recalibrate_batch_norm(model, calibration(b))


def calibration(b: Baseline) -> Iterator[Tensor]:
    """Yield the inputs of some training images, 64 at a time."""
    images = b.data.train.take(b.workload.calibration_images)
    return (images.inputs(slice(i, i + 64)) for i in range(0, len(images), 64))


def qat(b: Baseline) -> nn.Module:
    """Train with the rounding in the loop, one epoch of the workload's recipe of fine-tuning.

    At a tenth of its rate: with batch norm folded nothing bounds what a step does.
    """
    rate = b.workload.fine_tune.learning_rate / 10
    recipe = replace(b.workload.fine_tune, epochs=1, learning_rate=rate)
    images = b.data.train.take(b.workload.fine_tune_images)
    return quantize_aware(b.model, images, recipe, calibration(b))


def student(b: Baseline, *, temperature: float = 1.0, alpha: float) -> nn.Module:
    """Train the student by the workload's recipe; alpha 0 is the control, without a teacher."""
    torch.manual_seed(b.workload.student_recipe.seed)
    return distill(
        b.workload.student().to(b.device),
        b.model,
        b.data.train.take(b.workload.student_images),
        b.workload.student_recipe,
        temperature=temperature,
        alpha=alpha,
        on_epoch=b.on_epoch,
    )


def both(size: float, digits: float | None, cifar10: float | None, speed: float | None) -> Any:
    """Return a row's targets: file <= size, drop <= by workload, speed-up >=."""
    drops = {"digits": digits, "cifar10": cifar10}
    return {name: Target(size, drop, speed) for name, drop in drops.items()}


NO_INTEGER = tuple(place for place, ours in PREFERRED.items() if all(map(lacking, ours)))

# fmt: off
CASES = (
    #    name                       how                                                                        file <=  drop <= (digits, cifar10)  speed-up >=
    Case("baseline",                lambda b: b.model,                                                         both(1.0, 0.0, 0.0, 0.9)),
    Case("l1-unstructured-60",      lambda b: prune_l1_unstructured(b.model, amount=0.6),                      both(0.44, None, None, 0.9)),
    Case("l1-unstructured-60-recalibrated", lambda b: recalibrated(b, prune_l1_unstructured(b.model, amount=0.6)), both(0.44, 0.02, 0.02, 0.9)),
    Case("l1-unstructured-60-tuned", lambda b: tuned(b, prune_l1_unstructured(b.model, amount=0.6)),           both(0.44, 0.02, 0.01, 0.9)),
    Case("l1-global-60",            lambda b: prune_l1_global(b.model, amount=0.6),                            both(0.44, 0.02, 0.02, 0.9)),
    Case("random-unstructured-60",  lambda b: prune_random_unstructured(b.model, amount=0.6),                  both(0.44, None, None, 0.9)),
    Case("random-unstructured-60-tuned", lambda b: tuned(b, prune_random_unstructured(b.model, amount=0.6)),   both(0.44, None, None, 0.9)),
    Case("ln-structured-30",        lambda b: prune_ln_structured(b.model, amount=0.3),                        both(0.75, None, None, 0.9)),
    Case("ln-structured-30-tuned",  lambda b: tuned(b, prune_ln_structured(b.model, amount=0.3)),              both(0.75, 0.03, 0.10, 0.9)),
    Case("2-of-4",                  lambda b: prune_n_of_m(b.model),                                           both(0.54, None, None, None), size_only_on=("cpu", "cuda")),
    Case("2-of-4-tuned",            lambda b: tuned(b, prune_n_of_m(b.model)),                                 both(0.54, 0.02, 0.01, None), size_only_on=("cpu", "cuda")),
    Case("2-of-4-float16",          lambda b: cast(tuned(b, prune_n_of_m(b.model)), torch.float16),            both(0.28, 0.02, 0.01, None), devices=("cuda",), prepare=lower_semi_structured, channels_last=True, kernels=SEMI_STRUCTURED_KERNELS, size_only_without=True),
    Case("dynamic-int8",            lambda b: quantize_dynamic(b.model),                                       both(1.0, 0.005, 0.005, 0.8), kernels=(("aten::_int_mm",),)),
    Case("static-int8",             lambda b: quantize_static(b.model, calibration(b)),                        both(0.26, 0.01, 0.0015, None), simulated_on=NO_INTEGER, kernels=INTEGER_KERNELS),
    Case("int8-qat",                qat,                                                                       both(0.26, 0.01, 0.01, None), simulated_on=NO_INTEGER, kernels=INTEGER_KERNELS),
    Case("int4-weights",            lambda b: quantize_weights(b.model, num_bits=4, group_size=64),            both(0.15, 0.02, 0.02, None)),
    Case("shared-16",               lambda b: share_weights(b.model, num_clusters=16),                         both(0.13, 0.02, 0.02, 0.9)),
    Case("static-int8-coded",       lambda b: quantize_static(b.model, calibration(b)),                        both(0.23, 0.01, 0.0015, None), simulated_on=NO_INTEGER, kernels=INTEGER_KERNELS, entropy_coded=True),
    Case("pruned-int8-coded",       lambda b: quantize_static(retrained(b, 0.8), calibration(b)),              both(0.08, 0.01, 0.01, None), simulated_on=NO_INTEGER, kernels=INTEGER_KERNELS, entropy_coded=True),
    Case("pruned-shared-coded",     lambda b: shared(b, amount=0.85, bit_cost=0.05),                           both(0.04, 0.005, 0.005, 0.9), entropy_coded=True, facts={"pruned": 0.85, "bit_cost": 0.05}),
    Case("float16",                 lambda b: cast(b.model, torch.float16),                                    both(0.51, 0.005, 0.002, None), simulated_on=("cpu",)),
    Case("bfloat16",                lambda b: cast(b.model, torch.bfloat16),                                   both(0.51, 0.01, 0.005, None)),
    Case("channels-last",           lambda b: b.model,                                                         both(1.0, 0.0, 0.0, None), devices=("cuda",), channels_last=True),
    Case("float16-channels-last",   lambda b: cast(b.model, torch.float16),                                    both(0.51, 0.005, 0.002, None), devices=("cuda",), channels_last=True),
    Case("bfloat16-channels-last",  lambda b: cast(b.model, torch.bfloat16),                                   both(0.51, 0.01, 0.005, None), devices=("cuda",), channels_last=True),
    Case("student",                 lambda b: student(b, alpha=0.0),                                           both(0.122, None, None, 1.0), student=True),
    Case("distilled",               lambda b: student(b, temperature=4.0, alpha=0.5),                          both(0.122, 0.03, None, 1.0), student=True),
    Case("distilled-paper-t0.01",   lambda b: student(b, temperature=0.01, alpha=0.5),                         both(0.122, None, None, 1.0), student=True),
)
# fmt: on

PRUNING = {
    "l1-unstructured": prune_l1_unstructured,
    "l1-global": prune_l1_global,
    "random-unstructured": prune_random_unstructured,
    "ln-structured": prune_ln_structured,
}
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (0.01, 1.0, 4.0, 10.0)
ALPHAS = (0.1, 0.5, 0.9)


def pruning_point(family: str, amount: float, *, fine_tuned: bool) -> Case:
    """Return one point of the paper's figure 2."""

    def how(b: Baseline) -> nn.Module:
        pruned = PRUNING[family](b.model, amount=amount)
        return tuned(b, pruned) if fine_tuned else pruned

    name = f"sweep-{family}-{amount * 100:.0f}{'-tuned' if fine_tuned else ''}"
    facts = {"amount": amount, "fine_tuned": fine_tuned, "sweep": True}
    return Case(name, how, family=family, facts=facts)


def size_point(amount: float, bit_cost: float) -> Case:
    """Return one point of the curve of size against accuracy."""
    return Case(
        f"sweep-pruned-shared-{amount * 100:.0f}",
        lambda b: shared(b, amount=amount, bit_cost=bit_cost),
        family="pruned-shared",
        facts={"pruned": amount, "bit_cost": bit_cost, "sweep": True},
        entropy_coded=True,
    )


def distillation_point(temperature: float, alpha: float) -> Case:
    """Return one point of the paper's figure 6."""

    def how(b: Baseline) -> nn.Module:
        return student(b, temperature=temperature, alpha=alpha)

    facts = {"temperature": temperature, "alpha": alpha, "sweep": True}
    name = f"sweep-distilled-t{temperature:g}-a{alpha:g}"
    return Case(name, how, family="distilled", student=True, facts=facts)


# Pruned, and the price of a bit. The first is the control: as much training, 32 values, nothing else.
SIZES = ((0.0, 0.0), (0.75, 0.05), (0.88, 0.1), (0.92, 0.1), (0.96, 0.1))

SWEEP = (
    *(size_point(*point) for point in SIZES),
    *(
        pruning_point(family, amount, fine_tuned=fine_tuned)
        for family in PRUNING
        for amount in AMOUNTS
        for fine_tuned in (False, True)
    ),
    Case(
        "sweep-student",
        lambda b: student(b, alpha=0.0),
        family="student",
        student=True,
        facts={"sweep": True},
    ),
    *(distillation_point(temperature, alpha) for temperature in TEMPERATURES for alpha in ALPHAS),
)

BY_NAME = {case.name: case for case in (*CASES, *SWEEP)}
