"""What a technique does with a workload's images and recipes, for the rows and for the sweep."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.baseline import Baseline
from compression.clustering import fine_tune_centroids, share_weights
from compression.distillation import distill
from compression.pruning import fine_tune, prune_l1_global
from compression.quantization import quantize_aware, round_vectors
from compression.recalibration import recalibrate_batch_norm

CALIBRATION_BATCH = 64


def tune(b: Baseline, model: nn.Module) -> nn.Module:
    """Fine-tune by the workload's recipe, zeros kept."""
    return fine_tune(model, b.data.train.take(b.workload.fine_tune_images), b.workload.fine_tune)


def prune_and_train(b: Baseline, amount: float) -> nn.Module:
    """Prune globally, and train what is left by the workload's recipe for a sparse network."""
    pruned = prune_l1_global(b.model, amount=amount)
    recipe = b.workload.sparse or b.workload.fine_tune
    return fine_tune(pruned, b.data.train.take(b.workload.sparse_images), recipe)


def prune_and_share(b: Baseline, *, amount: float, bit_cost: float) -> nn.Module:
    """Prune, train, share weights at a price per bit, train what is shared, round the rest.

    Deep Compression's pipeline (Han et al. 2016, arXiv:1510.00149) with an entropy-constrained
    codebook.
    """
    few = share_weights(prune_and_train(b, amount), num_clusters=32, bit_cost=bit_cost)
    images = b.data.train.take(b.workload.fine_tune_images)
    recipe = replace(b.workload.fine_tune, epochs=1)
    return round_vectors(fine_tune_centroids(few, images, recipe))


def recalibrate(b: Baseline, model: nn.Module) -> nn.Module:
    """Estimate batch norm's statistics again, without training."""
    return recalibrate_batch_norm(model, calibration(b))


def calibration(b: Baseline) -> Iterator[Tensor]:
    """Yield the inputs of some training images, 64 at a time."""
    images = b.data.train.take(b.workload.calibration_images)
    starts = range(0, len(images), CALIBRATION_BATCH)
    return (images.inputs(slice(i, i + CALIBRATION_BATCH)) for i in starts)


def train_quantized(b: Baseline) -> nn.Module:
    """Train with the rounding in the loop, one epoch of the workload's recipe of fine-tuning.

    At a tenth of its rate: with batch norm folded nothing bounds what a step does.
    """
    rate = b.workload.fine_tune.learning_rate / 10
    recipe = replace(b.workload.fine_tune, epochs=1, learning_rate=rate)
    images = b.data.train.take(b.workload.fine_tune_images)
    return quantize_aware(b.model, images, recipe, calibration(b))


def train_student(b: Baseline, *, temperature: float = 1.0, alpha: float) -> nn.Module:
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
