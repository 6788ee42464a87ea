"""What a technique does with a workload's images and recipes, for the rows and for the sweep."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.baseline import Baseline
from benchmarks.calibration import calibration
from benchmarks.kept import Training, trained
from benchmarks.repairs import by_baseline, quick_teacher, repaired, taught_by
from compression.accounting import count_macs
from compression.channels import Criterion
from compression.clustering import fine_tune_centroids, share_weights
from compression.distillation import AttentionTransfer, Distillation, Hinton, distill
from compression.errors import CompressionError
from compression.pruning import prune_l1_global
from compression.quantization import quantize_aware, round_vectors
from compression.recalibration import recalibrate_batch_norm
from compression.removal import remove_channels, remove_channels_softly
from compression.training import AnySplit, Recipe

SCHEDULE_EPOCHS = 4
"""Of each schedule and of its controls: as many rounds fit."""
ALONE = Hinton(alpha=0.0)
"""What a student learns without a teacher."""
QUICK_FROM = 50_000
"""Images in all epochs from which a teacher in INT8 saves more time than it takes to make one."""
PROBED = {"every": 3, "steps": 4}
"""Options of schedules that a probe takes at most: pruned in turns within 4 steps, learned in 4."""


def tune(b: Baseline, model: nn.Module, *, taught: bool = False) -> nn.Module:
    """Fine-tune by the workload's recipe, zeros kept."""
    images = b.data.train.take(b.workload.fine_tune_images)
    return repaired(b, model, images, b.workload.fine_tune, taught=taught)


def prune_and_train(b: Baseline, amount: float, *, taught: bool = False) -> nn.Module:
    """Prune globally, and train what is left by the workload's recipe for a sparse network."""
    pruned = prune_l1_global(b.model, amount=amount)
    return repaired(b, pruned, *sparse_training(b), taught=taught)


def prune_and_share(
    b: Baseline, *, amount: float, bit_cost: float, taught: bool = False
) -> nn.Module:
    """Prune, train, share weights at a price per bit, train what is shared, round the rest.

    Deep Compression's pipeline (Han et al. 2016, arXiv:1510.00149) with an entropy-constrained
    codebook.
    """
    pruned = prune_and_train(b, amount, taught=taught)
    return share_and_tune(b, pruned, bit_cost=bit_cost, taught=taught)


def share_and_tune(
    b: Baseline, model: nn.Module, *, bit_cost: float, taught: bool = False
) -> nn.Module:
    """Share weights at a price per bit, train what is shared, round the rest."""
    few = share_weights(model, num_clusters=32, bit_cost=bit_cost)
    images = b.data.train.take(b.workload.fine_tune_images)
    recipe = replace(b.workload.fine_tune, epochs=1)
    training = Training(fine_tune_centroids, few, images, recipe)
    return round_vectors(trained(b, by_baseline(b, training) if taught else training))


def remove(
    b: Baseline, *, macs: float, criterion: Criterion = "l2", model: nn.Module | None = None
) -> nn.Module:
    """Remove channels until so much of the multiply-accumulates is left, and recalibrate.

    Widths are multiples of what kernels compute at once, unless a small network gets there only by
    others.
    """
    whole = model or b.model
    try:
        smaller = remove_channels(whole, example(b), macs=macs, criterion=criterion)
    except CompressionError:
        smaller = remove_channels(whole, example(b), macs=macs, criterion=criterion, multiple_of=1)
    return recalibrate(b, smaller)


def remove_and_tune(b: Baseline, *, macs: float, criterion: Criterion = "l2") -> nn.Module:
    """Remove channels, and train what is left."""
    return train_smaller(b, remove(b, macs=macs, criterion=criterion))


def train_smaller(b: Baseline, model: nn.Module) -> nn.Module:
    """Train a network that lost channels, by the workload's recipe for it, taught by the baseline."""
    recipes = b.workload.removal_on(b.device)
    if not recipes:
        return tune(b, model)
    left = count_macs(model, example(b)) / count_macs(b.model, example(b))
    nearest = min(recipes, key=lambda share: abs(math.log(share / left)))
    images = b.data.train.take(b.workload.removal_images)
    return repaired(b, model, images, recipes[nearest], taught=True)


def remove_and_share(b: Baseline, *, macs: float, bit_cost: float) -> nn.Module:
    """Remove channels, train, share weights at a price per bit, and train what is shared."""
    return share_and_tune(b, remove_and_tune(b, macs=macs), bit_cost=bit_cost)


def train_small(b: Baseline, *, macs: float) -> nn.Module:
    """Train a network of the same widths from the start, as long as the baseline and its repair.

    The control of removal: what the removed channels' network is worth without what it inherits.
    """
    torch.manual_seed(b.workload.recipe_on(b.device).seed)
    small = remove(b, macs=macs, model=b.workload.network().to(b.device))
    return train_smaller(b, repaired(b, small, b.data.train, b.workload.recipe_on(b.device)))


def remove_softly(b: Baseline, *, macs: float) -> nn.Module:
    """Remove channels while the network trains, and train what is left."""
    options = {"example": example(b), "macs": macs}
    training = Training(remove_channels_softly, b.model, *scheduled_training(b), options)
    return train_smaller(b, recalibrate(b, trained(b, training)))


def example(b: Baseline) -> Tensor:
    """Return one prepared image."""
    return b.data.train.take(1).inputs(slice(0, 1)).to(b.device)


def sparse_training(b: Baseline) -> tuple[AnySplit, Recipe]:
    """Return the images and the recipe that train a network of which most is pruned."""
    recipe = b.workload.sparse or b.workload.fine_tune
    return b.data.train.take(b.workload.sparse_images), recipe


def follow_schedule(b: Baseline, schedule: Callable[..., nn.Module], **options: Any) -> nn.Module:
    """Compress by a schedule while the network trains, and recalibrate."""
    training = Training(schedule, b.model, *scheduled_training(b), options, PROBED)
    return recalibrate(b, trained(b, training))


def learn(
    b: Baseline, schedule: Callable[..., nn.Module], *, most: int = 10, **options: Any
) -> nn.Module:
    """Compress by learning-compression, in at most so many steps, fewer where images are few."""
    images, recipe = scheduled_training(b)
    taken = len(images) * recipe.epochs // recipe.batch_size
    return follow_schedule(b, schedule, steps=max(1, min(most, taken // 4)), **options)


def scheduled_training(b: Baseline) -> tuple[AnySplit, Recipe]:
    """Return the images and the recipe of a schedule, which needs more epochs than a repair."""
    images, recipe = sparse_training(b)
    if b.workload.schedule_images is not None:
        images = b.data.train.take(b.workload.schedule_images)
    return images, replace(recipe, epochs=SCHEDULE_EPOCHS)


def recalibrate(b: Baseline, model: nn.Module) -> nn.Module:
    """Estimate batch norm's statistics again, without training."""
    return recalibrate_batch_norm(model, calibration(b))


def train_quantized(b: Baseline, *, taught: bool = False) -> nn.Module:
    """Train with the rounding in the loop, one epoch of the workload's recipe of fine-tuning.

    At a tenth of its rate: with batch norm folded nothing bounds what a step does.
    """
    rate = b.workload.fine_tune.learning_rate / 10
    recipe = replace(b.workload.fine_tune, epochs=1, learning_rate=rate)
    images = b.data.train.take(b.workload.fine_tune_images)
    options = {"calibration": list(calibration(b))}
    training = Training(quantize_aware, b.model, images, recipe, options)
    return trained(b, by_baseline(b, training) if taught else training)


def train_student(
    b: Baseline, distillation: Distillation, *, seed: int = 0, teacher: nn.Module | None = None
) -> nn.Module:
    """Train the student by the workload's recipe; ALONE is the control, which hears no teacher.

    The baseline teaches, or another network in its place: as INT8 where that saves time, unless its
    layers are watched.
    """
    recipe = replace(b.workload.student_recipe, seed=b.workload.student_recipe.seed + seed)
    torch.manual_seed(recipe.seed)
    student = b.workload.student().to(b.device)
    images = b.data.train.take(b.workload.student_images)
    return _taught(b, student, images, recipe, distillation, teacher or b.model)


def train_narrow(b: Baseline, distillation: Distillation, *, macs: float) -> nn.Module:
    """Train a network of fewer channels from the start, by the baseline's recipe and taught by it.

    Its widths are about the same share everywhere, and multiples of what kernels compute at once.
    """
    recipe = b.workload.recipe_on(b.device)
    torch.manual_seed(recipe.seed)
    whole = b.workload.network().to(b.device)
    narrow = remove(b, macs=macs, criterion="random", model=whole)
    return _taught(b, narrow, b.data.train, recipe, distillation, b.model)


def _taught(
    b: Baseline,
    student: nn.Module,
    images: AnySplit,
    recipe: Recipe,
    distillation: Distillation,
    teacher: nn.Module,
) -> nn.Module:
    watched = isinstance(distillation, AttentionTransfer)
    as_it_is = watched or len(images) * recipe.epochs < QUICK_FROM
    options = {"distillation": distillation}
    training = Training(
        distill, student, images, recipe, options, resumable=True, validation=b.data.validation
    )
    return trained(b, taught_by(teacher if as_it_is else quick_teacher(b, teacher), training))
