"""Which channels of a network go, by a criterion and a budget, and the network without them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compression.accounting import count_macs, count_parameters
from compression.attention import Attention
from compression.channels.costs import Cost, macs_cost, parameters_cost
from compression.channels.cutting import cut, zero
from compression.channels.following import follow
from compression.channels.scores import CRITERIA, Criterion, scores_of
from compression.channels.selection import select
from compression.channels.units import Width, kept_reasons, widths_of
from compression.channels.walk import Channels
from compression.checks import is_whole
from compression.errors import CompressionError, UnsupportedTypeError
from compression.layers import check_model, record_left_out
from compression.modes import evaluating
from compression.training import Labelled, Loss, example_of

TOLERANCE = 1e-3
"""Of the largest output: what was cut is what was zeroed but for the network's own rounding."""

SAVING: dict[str, float] = {"taylor": 1.0}
SAVING_BY_NORMS = 1 / 3
"""How much it counts what a unit saves. Taylor's scores are losses of the network, so that the best
buy is the lowest loss per saving. Norms say which unit of a width is worth least, little of how much
another width is worth: of 0 to 1, a third kept most of ResNet-18's accuracy on digits and CIFAR-10."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A network, what hangs together in it, and how much each unit is worth."""

    model: nn.Module
    example: tuple[Any, ...]
    channels: Channels
    widths: list[Width]
    scores: Tensor
    steps: list[int]
    at_least: float
    saving: float = SAVING_BY_NORMS

    def select(self, cost: Cost, budget: float) -> tuple[Tensor, list[int]]:
        """Return the channels that go (bool per label), and how many units of each width stay."""
        return select(
            self.widths,
            self.scores,
            cost,
            budget=budget,
            steps=self.steps,
            channels=[width.channels(self.channels) for width in self.widths],
            at_least=self.at_least,
            saving=self.saving,
        )

    def cost_in_macs(self) -> tuple[Cost, float]:
        """Return the multiply-accumulates as a function of the widths, and those of the network."""
        total = count_macs(self.model, *self.example)
        return macs_cost(self.channels, self.widths, total), float(total)

    def cost_in_parameters(self) -> tuple[Cost, float]:
        """Return the parameters as a function of the widths, and those of the network."""
        total = count_parameters(self.model)
        return parameters_cost(self.channels, self.widths, self.model, total), float(total)

    def cut(self, gone: Tensor) -> nn.Module:
        """Return the network without channels; CompressionError where that changes its outputs."""
        smaller = cut(self.model, self.channels, gone)
        _compare(smaller, zero(self.model, self.channels, gone), self.example)
        record_left_out(smaller, _reasons(self.channels))
        return smaller


def choose(
    model: nn.Module,
    example: Any,
    *,
    criterion: Criterion = "l2",
    batches: Iterable[Any] | Labelled | None = None,
    multiple_of: int = 16,
    at_least: float = 0.1,
    seed: int = 0,
    loss: Loss | None = None,
) -> Choice:
    """Return what may go of `model`, and how much it is worth; options as of `remove_channels`."""
    _check_network(model)
    _check_options(criterion, multiple_of, at_least, seed)
    example = example_of(example)
    inputs = example if isinstance(example, tuple) else (example,)
    channels = follow(model, inputs)
    widths = widths_of(channels)
    if not widths:
        raise _nothing(model, channels)
    scores = scores_of(model, channels, widths, criterion, batches=batches, seed=seed, loss=loss)
    steps = [width.step(channels, multiple_of) for width in widths]
    saving = SAVING.get(criterion, SAVING_BY_NORMS)
    return Choice(model, inputs, channels, widths, scores, steps, at_least, saving)


def _check_network(model: nn.Module) -> None:
    check_model(model)
    for name, module in model.named_modules():
        if type(module).__module__.startswith("compression.") and type(module) is not Attention:
            raise UnsupportedTypeError(
                f"{name or 'the network'}: expected a network in float, found {type(module).__name__}; "
                "remove channels first, then compress what is left"
            )


def _check_options(criterion: str, multiple_of: int, at_least: float, seed: int) -> None:
    if criterion not in CRITERIA:
        raise CompressionError(
            f"criterion must be one of {', '.join(CRITERIA)}, found {criterion!r}"
        )
    if not is_whole(multiple_of) or multiple_of < 1:
        raise CompressionError(f"multiple_of must be a whole number from 1, found {multiple_of!r}")
    if not is_whole(seed):
        raise CompressionError(f"seed must be a whole number, found {seed!r}")
    check_fraction("at_least", at_least)


def _nothing(model: nn.Module, channels: Channels) -> CompressionError:
    lacks = f"the network is one layer of torch, {type(model).__name__}, or has none with channels"
    return CompressionError(
        f"no channel of the network can go: {_few(_reasons(channels)) or lacks}"
    )


def _reasons(channels: Channels) -> dict[str, str]:
    """Return the weights whose channels all stay, by dotted name, and why."""
    return kept_reasons(channels) | channels.unknown


def _few(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in list(reasons.items())[:3])


def check_fraction(name: str, value: Any) -> None:
    """Refuse what is no fraction above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise CompressionError(f"{name} is a fraction above 0 and at most 1, found {value!r}")


def reach(choice: Choice, cost: Cost, name: str, fraction: float, total: float) -> Tensor:
    """Return the channels that go so that the cost is at most a fraction of `total`."""
    gone, kept = choice.select(cost, fraction * total)
    left = cost.of(kept) / total
    if left > fraction * (1 + 1e-9):
        reasons = _reasons(choice.channels)
        raise CompressionError(
            f"{name}={fraction:g} is out of reach: {left:.3f} stay with at least "
            f"{choice.at_least:g} of each layer's channels, in multiples of {max(choice.steps)}; "
            f"ask for more, or lower at_least or multiple_of. Layers that keep all: {len(reasons)} "
            f"({_few(reasons)})"
        )
    return gone


@torch.no_grad()
def _compare(smaller: nn.Module, zeroed: nn.Module, example: Sequence[Any]) -> None:
    """Refuse a network whose outputs are not those of zeros in the place of what was cut."""
    try:
        with evaluating(smaller), evaluating(zeroed):
            found, wanted = _tensors(smaller(*example)), _tensors(zeroed(*example))
    except Exception as error:  # a forward that counts channels where the trace does not show it
        raise UnsupportedTypeError(
            f"without the channels the network fails ({error}): its forward expects their number; "
            "read sizes off tensors, as in x.flatten(1)"
        ) from error
    for a, b in zip(found, wanted, strict=True):
        if not _alike(a, b):
            raise UnsupportedTypeError(
                "without the channels the network computes something else than with zeros in their "
                "place: does its forward depend on what torch.fx does not see, as the data or "
                "randomness?"
            )


def _alike(found: Tensor, wanted: Tensor) -> bool:
    """Tell whether numbers differ by rounding only; -inf of a mask is what it was."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    if not wanted.is_floating_point() or not wanted.numel():  # by rounding, an index is another
        return True
    a, b = found.double(), wanted.double()
    largest = float(b.nan_to_num(0, 0, 0).abs().max())
    bound = max(TOLERANCE, 16 * torch.finfo(wanted.dtype).eps) * max(largest, 1e-30)
    same = (a == b) | (a.isnan() & b.isnan())
    return bool((same | ((a - b).abs() <= bound)).all())


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    parts = outputs if isinstance(outputs, tuple | list) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
