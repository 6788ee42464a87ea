"""What is compressed and measured: a network, its data, and the recipes of its trainings."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.baseline.data import Data
from benchmarks.baseline.networks import five_layer_cnn
from compression.training import TOP_1, Loss, Metric, Recipe

RECIPE = Recipe(
    epochs=60, batch_size=64, learning_rate=1e-3, optimizer="adam", weight_decay=0.0,
    precision="bfloat16",
)  # fmt: skip
FINE_TUNE = dataclasses.replace(RECIPE, epochs=8, learning_rate=2e-4)
STUDENT_RECIPE = dataclasses.replace(RECIPE)


@dataclass(frozen=True, slots=True)
class Workload:
    """A network, the data that it is measured on, and the recipes that train it and its results.

    The recipes that are left out fit most networks; with more images they have fewer epochs. The
    student that is left out has the channels and classes of the data.

    - `network`: returns a fresh network with the state-dict keys of the baseline; `named(...)` is one
      by its name.
    - `pretrained`: returns the network that training starts from; `network` by default.
    - `trained`: what `pretrained` returns is the baseline, and nothing is trained for it.
    - `recipe`: trains the baseline; `cuda_recipe`, where it is given, trains it on a GPU.
    - `fine_tune`: repairs what a technique did.
    - `sparse`: trains a network of which most is pruned; `fine_tune` by default.
    - `schedule_images`: those of the schedules, which take several epochs; `sparse_images` by default.
    - `removal`: trains a network that lost channels, taught by the baseline; a recipe by the share of
      the multiply-accumulates that is left, of which the nearest counts; `fine_tune` by default.
      `cuda_removal`, where it is given, trains it on a GPU.
    - `student_layers`: the layers of the student that learn where those of `network` are active, as
      AttentionTransfer takes them; the sweep of losses has such a row where they are given.
    - `batch_sizes`: those of the latency rows: the smallest, and one for throughput.
    - `rows`: the names of the techniques that are measured; all by default.
    - `metric`: what the network and its results are judged by; top-1 by default.
    - `loss`: (outputs, targets, inputs) -> a number, by which all trains; cross-entropy by default.
    - `coarse_for`: the network that the recipe's coarse sizes were chosen for. Another trains on whole
      images, since fewer pixels may cost it accuracy.
    """

    name: str
    network: Callable[[], nn.Module]
    data: Callable[[Path | None], Data]
    recipe: Recipe = RECIPE
    fine_tune: Recipe = FINE_TUNE
    student: Callable[[], nn.Module] = five_layer_cnn
    student_recipe: Recipe = STUDENT_RECIPE
    pretrained: Callable[[], nn.Module] | None = None
    fine_tune_images: int | None = None
    student_images: int | None = None
    student_layers: Mapping[str, str] = field(default_factory=dict)
    sparse: Recipe | None = None
    sparse_images: int | None = None
    schedule_images: int | None = None
    removal: Mapping[float, Recipe] = field(default_factory=dict)
    removal_images: int | None = None
    cuda_removal: Mapping[float, Recipe] = field(default_factory=dict)
    calibration_images: int = 256
    batch_sizes: tuple[int, int] = (1, 64)
    cuda_batch_sizes: tuple[int, ...] = (1, 128, 1024)
    cuda_recipe: Recipe | None = None
    coarse_for: Callable[[], nn.Module] | None = None
    rows: tuple[str, ...] = ()
    trained: bool = False
    metric: Metric = TOP_1
    loss: Loss | None = None

    def recipe_on(self, device: torch.device | str) -> Recipe:
        """Return the baseline's recipe on a device."""
        cuda = torch.device(device).type == "cuda"
        recipe = self.cuda_recipe if cuda and self.cuda_recipe else self.recipe
        if recipe.coarse_sizes and self.coarse_for not in (None, self.network):
            return dataclasses.replace(recipe, coarse_sizes=())
        return recipe

    def removal_on(self, device: torch.device | str) -> Mapping[float, Recipe]:
        """Return the recipes on a device of networks that lost channels, by the share that is left."""
        cuda = torch.device(device).type == "cuda"
        return self.cuda_removal if cuda and self.cuda_removal else self.removal

    def with_recipe_on(self, device: torch.device | str, recipe: Recipe) -> "Workload":
        """Return the workload with another recipe for the baseline on a device."""
        if torch.device(device).type == "cuda" and self.cuda_recipe:
            return dataclasses.replace(self, cuda_recipe=recipe)
        return dataclasses.replace(self, recipe=recipe)

    def initial_network(self, device: torch.device | str) -> nn.Module:
        """Return the network that training on a device starts from, drawn by its recipe's seed."""
        torch.manual_seed(self.recipe_on(device).seed)
        return (self.pretrained or self.network)()

    def recipe_fingerprint(self, device: torch.device | str = "cpu") -> str:
        """Hash what training on `device` depends on, its data apart (SHA-256, 16 hex digits)."""
        start = self.pretrained or self.network
        parts = [self.name, name_of(self.network), name_of(start)]
        parts += ["trained"] if self.trained else []
        parts += [] if self.loss is None else [name_of(self.loss)]
        recipe = dataclasses.asdict(self.recipe_on(device))
        # Fields newer than the saved runs are left out where they are unused: fingerprints stay.
        for newer in ("cutout", "compiled", "views"):
            if not recipe[newer]:
                del recipe[newer]
        if recipe["shift_factor"] == 1:
            del recipe["shift_factor"]
        if recipe["optimizer"] != "muon":
            del recipe["muon_rate"], recipe["muon_decay"]
        text = json.dumps([*parts, recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def name_of(factory: Any) -> str:
    """Return a factory's name, the same in every process: what it is and what it was given.

    >>> name_of(networks.resnet18_10)
    'resnet18_10'
    >>> name_of(functools.partial(networks.drawn, "resnet18", num_classes=10))
    "partial(drawn, 'resnet18', num_classes=10)"
    """
    name = getattr(factory, "__qualname__", None)
    if isinstance(name, str):
        return name
    if isinstance(factory, functools.partial):
        given = [name_of(value) for value in factory.args]
        given += [f"{key}={name_of(value)}" for key, value in factory.keywords.items()]
        return f"partial({', '.join([name_of(factory.func), *given])})"
    text = repr(factory)
    return type(factory).__qualname__ if " at 0x" in text else text  # an address is no name
