"""Checks before anything is trained: do the parts of a workload fit together?"""

from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.baseline.data import Data
from benchmarks.baseline.workload import Workload
from compression.errors import CompressionError
from compression.training import feed_of


@torch.no_grad()
def check_outputs(workload: Workload, data: Data) -> None:
    """Refuse, before any training, a network that cannot take the images or has too few outputs."""
    labels = torch.cat([s.labels.cpu() for s in (data.train, data.validation, data.test)])
    lowest, highest = int(labels.min()), int(labels.max())
    image = data.validation.inputs(slice(0, 1)).cpu()
    for part, factory in (("network", workload.network), ("student", workload.student)):
        title = f"workload {workload.name}: its {part}"
        try:
            logits = factory().eval()(image)
        except Exception as error:  # of the user's code, whatever it is
            kind = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
            raise CompressionError(
                f"{title} cannot take an input of shape {tuple(image.shape)} ({kind}{error})"
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim < 2:
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits)
            raise CompressionError(
                f"{title} must give one tensor of logits (N, classes), found {found}"
            )
        classes = logits.shape[1]
        if lowest < 0 or highest >= classes:
            raise CompressionError(
                f"{title} has {classes} outputs, expected labels from 0 to {classes - 1}, found "
                f"{lowest} to {highest}"
            )


def with_fitting_sizes(
    workload: Workload, data: Data, device: torch.device, report: Callable[[str], None]
) -> Workload:
    """Return the workload without coarse sizes that its network cannot take, and report them."""
    recipe = workload.recipe_on(device)
    if not recipe.coarse_sizes:
        return workload
    few = data.train.take(2).to("cpu")
    short = replace(recipe, batch_size=2, precision="float32", compiled=False)
    with torch.random.fork_rng(devices=[]):
        network = workload.network()
    try:
        feed_of(network, few, short)
    except CompressionError as error:
        whole = replace(recipe, coarse_sizes=())
        report(
            f"{workload.name} baseline: trained on whole images, without the recipe's coarse sizes "
            f"{', '.join(map(str, dict.fromkeys(recipe.coarse_sizes)))} ({error})"
        )
        return workload.with_recipe_on(device, whole)
    return workload
