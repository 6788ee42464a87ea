"""Trainings that one process and two do alike; programs run `each` by name."""

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.baseline import Data
from compression import distill, fine_tune, prune_l1_unstructured, quantize_aware
from compression.training import EpochReport, Recipe, Split, fit
from tests.support.nets import Residual, images, mlp
from tests.support.workloads import TINY

RECIPE = Recipe(epochs=2, batch_size=9, learning_rate=0.05, cutout=3)
"""Of 64 images: batches of 9, which two processes cannot divide evenly, and a last one of 1."""


def still(seed: int = 0, **norms: Any) -> nn.Module:
    """Return a residual network without dropout, with group norms for batch norms where it is asked."""
    torch.manual_seed(seed)
    model = Residual()
    model.drop = nn.Identity()
    if norms.get("group"):
        model.bn1, model.bn2 = nn.GroupNorm(2, 8), nn.GroupNorm(2, 8)
    return model.eval()


def shifted(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Add a draw of its own to each image."""
    return batch + torch.rand(len(batch), 1, 1, 1, generator=generator)


def pictures(count: int = 64) -> Split:
    """Return images of noise that are augmented."""
    x = images(count)
    return Split(x, x.mean(dim=(1, 2, 3)).gt(0).long(), prepare=lambda x: x, augment=shifted)


def baseline(model: nn.Module, **options: Any) -> tuple[nn.Module, list[float]]:
    """Return a network that `fit` trained, and the loss of each epoch."""
    losses: list[float] = []

    def on_epoch(report: EpochReport) -> None:
        losses.append(report.mean_loss)

    train, recipe = options.pop("train", None) or pictures(), options.pop("recipe", RECIPE)
    fit(model, train, recipe, on_epoch=on_epoch, **options)
    return model, losses


def ignoring() -> tuple[nn.Module, list[float]]:
    """Train on labels of which most of one half count nowhere, with smoothing."""
    train = pictures(16)
    labels = train.labels.clone()
    labels[:9] = -100
    recipe = replace(RECIPE, batch_size=16, label_smoothing=0.1)
    return baseline(still(group=True), train=replace(train, labels=labels), recipe=recipe)


class Partly(nn.Module):
    """Has a layer that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = mlp(), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)  # type: ignore[no-any-return]


def tuned() -> tuple[nn.Module, list[float]]:
    """Fine-tune a pruned network, with a teacher."""
    losses: list[float] = []
    pruned = prune_l1_unstructured(still(group=True), amount=0.5)
    return fine_tune(
        pruned, pictures(), RECIPE, teacher=still(1, group=True),
        on_epoch=lambda report: losses.append(report.mean_loss),
    ), losses  # fmt: skip


def distilled() -> tuple[nn.Module, list[float]]:
    """Train a student whose batches come again."""
    losses: list[float] = []
    return distill(
        mlp(), still(), pictures(), replace(RECIPE, epochs=3, views=2),
        on_epoch=lambda report: losses.append(report.mean_loss),
    ), losses  # fmt: skip


def aware() -> tuple[nn.Module, list[float]]:
    """Train with the rounding in the loop."""
    recipe = replace(RECIPE, learning_rate=0.001)
    return quantize_aware(still(), pictures(), recipe, images(16)), []


CASES: dict[str, Callable[[], tuple[nn.Module, list[float]]]] = {
    "group norm": lambda: baseline(still(group=True)),
    "batch norm": lambda: baseline(still()),
    "frozen batch norm": lambda: baseline(_frozen(still())),
    "a last batch of one image": lambda: baseline(
        still(), train=pictures(19), recipe=replace(RECIPE, epochs=4)
    ),
    "labels that count nowhere": ignoring,
    "a parameter without a gradient": lambda: baseline(Partly()),
    "pruned, with a teacher": tuned,
    "distilled": distilled,
    "quantization-aware": aware,
}


def _frozen(model: Any) -> nn.Module:
    for parameter in model.bn1.parameters():
        parameter.requires_grad_(False)
    model.bn1.momentum, model.bn2.momentum = None, 0.3
    return model  # type: ignore[no-any-return]


def run_case(name: str) -> dict[str, Any]:
    """Return what a training gives: its losses, and its numbers."""
    model, losses = CASES[name]()
    return {"losses": losses, "state": model.state_dict()}


def main() -> None:
    """Run the cases in the group that the environment describes, and keep the results of process 0."""
    path, *names = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {name: run_case(name) for name in names}
    digest = hashlib.sha256()
    for name in names:
        for tensor in results[name]["state"].values():
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    print(digest.hexdigest())
    if dist.get_rank() == 0:
        torch.save(results, path)
    dist.destroy_process_group()


def noise(_: Path | None = None) -> Data:
    """Return images that are augmented."""
    return Data(pictures(), replace(pictures(16), augment=None), pictures(16), title="noise")


def other_images(_: Path | None = None) -> Data:
    """Return other images in each process."""
    data = noise()
    data.train.images.add_(int(os.environ["RANK"]))
    return data


def _in_one(change: Callable[[Tensor], Tensor]) -> Callable[[Path | None], Data]:
    def prepare(x: Tensor) -> Tensor:
        joined = dist.is_available() and dist.is_initialized()
        return change(x) if joined and dist.get_rank() == 1 else x

    return lambda _: replace(noise(), train=replace(pictures(), prepare=prepare))


def _fail(_: Tensor) -> Tensor:
    raise KeyError("a mistake of the user's")


STILL = replace(TINY, name="still", network=still, data=noise, recipe=replace(RECIPE, epochs=3))
SMALL_BATCHES = replace(STILL, recipe=replace(STILL.recipe, batch_size=1))
OTHER_IMAGES = replace(STILL, data=other_images)
HOT = replace(STILL, recipe=replace(STILL.recipe, learning_rate=1e30))
NAN_IN_ONE = replace(STILL, data=_in_one(lambda x: x * float("nan")))
FAILING_IN_ONE = replace(STILL, data=_in_one(_fail))
