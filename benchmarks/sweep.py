"""SWEEP: the points behind the figures, asked for with -m sweep."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.pipelines import (
    ALONE,
    prune_and_share,
    remove_and_tune,
    train_small,
    train_student,
    tune,
)
from benchmarks.repairs import repaired
from benchmarks.technique import Technique
from compression.channels import Criterion
from compression.distillation import (
    AttentionTransfer,
    Decoupled,
    Dist,
    Distillation,
    Hinton,
    Standardized,
)
from compression.errors import CompressionError
from compression.pruning import (
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_random_unstructured,
)

PRUNING = {
    "l1-unstructured": prune_l1_unstructured,
    "l1-global": prune_l1_global,
    "random-unstructured": prune_random_unstructured,
    "ln-structured": prune_ln_structured,
}
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TEMPERATURES = (0.01, 1.0, 4.0, 10.0)
ALPHAS = (0.1, 0.5, 0.9)
SEEDS = (0, 1, 2)
# The amount pruned, and the price of a bit. The first is the control: as much training, 32 values,
# nothing else.
SIZES = ((0.0, 0.0), (0.75, 0.05), (0.88, 0.1), (0.92, 0.1), (0.96, 0.1))

# What stays of the multiply-accumulates; "small-dense" is trained from the start.
MACS = (0.75, 0.5, 0.35, 0.25, 0.125)
CHANNELS: dict[str, Criterion] = {"channels": "l2", "random-channels": "random"}


def pruning_point(family: str, amount: float, *, fine_tuned: bool) -> Technique:
    """Return one point of the paper's figure 2."""

    def how(b: Baseline) -> nn.Module:
        pruned = PRUNING[family](b.model, amount=amount)
        return tune(b, pruned) if fine_tuned else pruned

    name = f"sweep-{family}-{amount * 100:.0f}{'-tuned' if fine_tuned else ''}"
    facts = {"amount": amount, "fine_tuned": fine_tuned, "sweep": True}
    return Technique(name, how, family=family, facts=facts)


def size_point(amount: float, bit_cost: float) -> Technique:
    """Return one point of the curve of size against accuracy, taught by the baseline."""
    return Technique(
        f"sweep-pruned-shared-{amount * 100:.0f}",
        lambda b: prune_and_share(b, amount=amount, bit_cost=bit_cost, taught=True),
        family="pruned-shared",
        facts={"pruned": amount, "bit_cost": bit_cost, "sweep": True},
        entropy_coded=True,
    )


def distillation_point(temperature: float, alpha: float) -> Technique:
    """Return one point of the paper's figure 6."""

    def how(b: Baseline) -> nn.Module:
        return train_student(b, Hinton(temperature=temperature, alpha=alpha))

    facts = {"temperature": temperature, "alpha": alpha, "sweep": True}
    name = f"sweep-distilled-t{temperature:g}-a{alpha:g}"
    return Technique(name, how, family="distilled", student=True, facts=facts)


def learn_attention(b: Baseline) -> Distillation:
    """Return the loss of the layers that the workload names."""
    if not b.workload.student_layers:
        raise CompressionError(
            f"workload {b.workload.name} names no layers of its student: pass student_layers="
            '{"layer of the student": "layer of the network"}, or leave the row out by -k'
        )
    return AttentionTransfer(b.workload.student_layers, logits=Hinton())


def stop_early(b: Baseline) -> nn.Module:
    """Return the network after a training of a third of the epochs (Cho and Hariharan 2019)."""
    recipe = b.workload.recipe_on(b.device)
    epochs = max(1, recipe.epochs // 3)
    shorter = replace(recipe, epochs=epochs, coarse_sizes=recipe.coarse_sizes[::3][: epochs - 1])
    start = b.workload.initial_network(b.device).to(b.device)
    return repaired(b, start, b.data.train, shorter)


def assist(b: Baseline) -> nn.Module:
    """Return a network between teacher and student, taught by the teacher (Mirzadeh et al. 2020)."""
    return remove_and_tune(b, macs=0.25)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the student learns, and of whom: of the baseline, unless another teacher is made."""

    distillation: Callable[[Baseline], Distillation]
    teacher: Callable[[Baseline], nn.Module] | None = None


LESSONS = {
    "alone": Lesson(lambda _: ALONE),
    "hinton": Lesson(lambda _: Hinton()),
    "standardized": Lesson(lambda _: Standardized()),
    "decoupled": Lesson(lambda _: Decoupled()),
    "dist": Lesson(lambda _: Dist()),
    "attention": Lesson(learn_attention),
    "early-stopped": Lesson(lambda _: Hinton(), stop_early),
    "assistant": Lesson(lambda _: Hinton(), assist),
}
"""Rows of the table of losses and teachers; the first is their control."""


def lesson_point(name: str, seed: int) -> Technique:
    """Return one training of the student by one lesson."""

    def how(b: Baseline) -> nn.Module:
        lesson = LESSONS[name]
        teacher = lesson.teacher and lesson.teacher(b)
        return train_student(b, lesson.distillation(b), seed=seed, teacher=teacher)

    facts = {"lesson": name, "seed": seed, "sweep": True}
    return Technique(f"sweep-{name}-seed{seed}", how, family="lessons", student=True, facts=facts)


def channels_point(macs: float, kind: str) -> Technique:
    """Return one point of accuracy against the multiply-accumulates that stay."""

    def how(b: Baseline) -> nn.Module:
        if kind == "small-dense":
            return train_small(b, macs=macs)
        return remove_and_tune(b, macs=macs, criterion=CHANNELS[kind])

    facts = {"macs_share": macs, "sweep": True}
    return Technique(f"sweep-{kind}-{macs * 100:g}", how, family=kind, facts=facts)


STUDENT = Technique(
    "sweep-student",
    lambda b: train_student(b, ALONE),
    family="student",
    student=True,
    facts={"sweep": True},
)
"""The control of figure 6, trained without a teacher."""

TIMED = tuple(channels_point(macs, kind) for kind in (*CHANNELS, "small-dense") for macs in MACS)
"""The points of the sweep whose latency is measured too: they differ in it."""

SWEEP = (
    *TIMED,
    *(size_point(*point) for point in SIZES),
    *(
        pruning_point(family, amount, fine_tuned=fine_tuned)
        for family in PRUNING
        for amount in AMOUNTS
        for fine_tuned in (False, True)
    ),
    STUDENT,
    *(distillation_point(temperature, alpha) for temperature in TEMPERATURES for alpha in ALPHAS),
    *(lesson_point(name, seed) for name in LESSONS for seed in SEEDS),
)
