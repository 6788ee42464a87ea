"""Distillation by attention maps: where in the image the teacher's layers are active."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.checks import is_whole
from compression.distillation.correlation import Dist
from compression.distillation.decoupled import Decoupled
from compression.distillation.hinton import Hinton
from compression.distillation.layers import outputs_of, watching
from compression.distillation.logits import check_option
from compression.distillation.outputs import MeanSquared
from compression.distillation.standardized import Standardized
from compression.errors import CompressionError, UnsupportedTypeError
from compression.training.checks import describe

OfLogits = Hinton | Standardized | Decoupled | Dist
"""The losses of logits and labels."""
OfOutputs = OfLogits | MeanSquared
"""The losses that need no layer of either network."""
_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def attention_distance(student: Tensor, teacher: Tensor, *, axis: int = 1) -> Tensor:
    """Return the mean square of the difference of two layers' attention maps.

    Of activations (N, ...) whose channels lie along `axis`, 1 for images (N, C, H, W) and -1 for
    tokens (N, L, C), a map is the mean of the squares over the channels, over the map's norm. The
    numbers of channels may differ. Where images' sizes do, both maps are averaged down to the smaller
    one first; tokens have no place, so that theirs must agree. In float32 at least. CompressionError
    for activations that do not go together. Zagoruyko and Komodakis 2017, arXiv:1612.03928; the mean
    over images and positions is that of their code.

    >>> x = torch.rand(2, 8, 4, 4)
    >>> attention_distance(3 * x, torch.cat([x, x], dim=1)) < 1e-12
    tensor(True)
    """
    maps = [_map(student, "student", axis), _map(teacher, "teacher", axis)]
    sizes = [tuple(m.shape[1:]) for m in maps]
    if len(student) != len(teacher) or len(sizes[0]) != len(sizes[1]):
        raise CompressionError(
            f"student and teacher must give activations of as many images and axes, found "
            f"{describe(student)} and {describe(teacher)}; name layers that go together"
        )
    if sizes[0] != sizes[1]:
        if axis != 1 or len(sizes[0]) not in _POOLS:
            raise CompressionError(
                f"maps of tokens must be of one size, found {sizes[0]} of the student and {sizes[1]} "
                "of the teacher; name layers that see as many tokens"
            )
        smallest = tuple(map(min, *sizes))
        maps = [_POOLS[len(smallest)](m.unsqueeze(1), smallest).squeeze(1) for m in maps]
    unit_maps = [F.normalize(m.flatten(1), dim=1) for m in maps]
    return (unit_maps[0] - unit_maps[1]).square().mean()


@dataclass(frozen=True, slots=True)
class AttentionTransfer:
    """The student's layers learn where those of the teacher are active, beside a loss of logits.

    layers  {layer of the student: layer of the teacher}, by their dotted names: layers, or blocks of
            them, that the forward calls once and that return one tensor. The map is that of what an
            in-place activation after a layer leaves of its output
    beta    above 0: weight of the sum of their `attention_distance`s
    axis    of the channels in what these layers return: 1 for images, -1 for tokens (N, L, C)
    logits  the loss beside it; by default the labels alone, for which the teacher's classes may be
            others

    CompressionError for options out of these ranges, and in training for layers that a network lacks
    or does not call once. A teacher that `deploy` returned has no layers. Zagoruyko and Komodakis
    2017, arXiv:1612.03928, with beta of their code.

    >>> from compression import Recipe, Split, distill
    >>> train = Split(torch.randn(32, 3, 8, 8), torch.arange(32) % 2, prepare=lambda x: x)
    >>> def net(channels: int) -> nn.Module:
    ...     convolution = nn.Conv2d(3, channels, 3)
    ...     return nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(channels * 36, 2))
    >>> loss = AttentionTransfer({"1": "1"}, logits=Hinton(temperature=4.0))
    >>> recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.01)
    >>> distill(net(2), net(8), train, recipe, distillation=loss)[0]
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1))
    """

    layers: Mapping[str, str]
    beta: float = field(default=1000.0, kw_only=True)
    axis: int = field(default=1, kw_only=True)
    logits: OfOutputs = field(default=Hinton(alpha=0.0), kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        named = isinstance(self.layers, Mapping) and all(
            isinstance(name, str) for pair in self.layers.items() for name in pair
        )
        if not named or not self.layers:
            raise CompressionError(
                "layers must map the student's layers to the teacher's, as {'layer1': 'layer2'}, "
                f"found {self.layers!r}"
            )
        check_option("beta", self.beta, lambda x: x > 0, "be above 0 and finite")
        if not is_whole(self.axis) or self.axis == 0:
            raise CompressionError(
                f"axis must be 1, -1, ... and not the images', found {self.axis!r}"
            )
        if not isinstance(self.logits, OfOutputs):
            raise UnsupportedTypeError(
                "logits must be Hinton, Standardized, Decoupled, Dist or MeanSquared, found "
                f"{type(self.logits).__name__}"
            )

    @contextmanager
    def watched(self, student: nn.Module, teacher: nn.Module) -> Iterator[Callable[[], Tensor]]:
        """Give what returns the distance of the latest forwards of both; hooks go afterwards."""
        with ExitStack() as hooks:
            seen = [
                hooks.enter_context(watching(network, names, who))
                for network, names, who in (
                    (student, list(self.layers), "student"),
                    (teacher, list(self.layers.values()), "teacher"),
                )
            ]
            yield lambda: self._distance(seen)

    def _distance(self, seen: list[dict[str, list[Any]]]) -> Tensor:
        total: Tensor | float = 0.0
        for pair in self.layers.items():
            outputs = [
                outputs_of(layers, name, who)
                for layers, name, who in zip(seen, pair, ("student", "teacher"), strict=True)
            ]
            total = total + attention_distance(*outputs, axis=self.axis)
        for layers in seen:
            layers.clear()  # nothing of this step is kept for the next
        return self.beta * torch.as_tensor(total)


def _map(activations: Tensor, who: str, axis: int) -> Tensor:
    """Return the mean square over the channels, (N, ...)."""
    fits = activations.is_floating_point() and activations.ndim > 2 and activations.numel()
    if not fits or not -activations.ndim < axis < activations.ndim:
        raise CompressionError(
            f"the {who}'s activations: expected floating-point numbers (N, channels, positions, ...), "
            f"channels along axis {axis}, found {describe(activations)}"
        )
    precision = torch.promote_types(activations.dtype, torch.float32)
    return activations.to(precision).square().mean(axis)
