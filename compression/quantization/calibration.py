"""Calibration: the range of each activation, chosen from what a network does on some inputs.

min-max      the smallest and largest                                (Jacob et al. 2018, 3.1)
percentile   all but a tail of 1e-4 at either end                     (Wu et al. 2020, 3.3)
mse          the range of least squared error of the codes            (Banner et al. 2019)
entropy      the threshold of least Kullback-Leibler divergence       (Migacz 2017, TensorRT)
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx, nn

from compression.affine import TINY
from compression.errors import CompressionError
from compression.layers import copy_model
from compression.training import has_bfloat16, input_batches

Range = tuple[Tensor, Tensor]
Method = Literal["min-max", "percentile", "mse", "entropy"]
Precision = Literal["float32", "bfloat16"]
Given = Callable[[str, Tensor], None]
"""Is shown a module's name and what it is given."""

SAMPLES_PER_BATCH = 16_384
"""Values of an activation that are kept of each batch for the methods that look at more than ends."""
PERCENTILE = 0.9999
CANDIDATES = 64
BINS, LEVELS = 2048, 128


class Activation:
    """What is known of one activation: its ends, some of its values, its means by channel.

    `means` are those along dimension 1, `last_means` those along the last, a linear layer's channels.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.low = torch.tensor(float("inf"))
        self.high = torch.tensor(float("-inf"))
        self.samples: list[Tensor] = []
        self.means: list[Tensor] = []
        self.last_means: list[Tensor] = []

    def see(self, value: Tensor, *, keep: bool) -> None:
        """Take in the activation (N, C, ...) of one batch."""
        if not value.numel():
            return
        value = value.detach()  # of a parameter, too
        low, high = torch.aminmax(value)
        self.low = torch.minimum(self.low, low.float().cpu())
        self.high = torch.maximum(self.high, high.float().cpu())
        if keep:
            flat = value.flatten()
            step = max(1, flat.numel() // SAMPLES_PER_BATCH)
            # An odd step, so that it does not walk down one column of an image of even width.
            self.samples.append(flat[:: step | 1].float().cpu())
            self.means.append(_means(value, 1))
            self.last_means.append(_means(value, value.ndim - 1))


def _means(value: Tensor, axis: int) -> Tensor:
    return value.float().mean([d for d in range(value.ndim) if d != axis]).cpu()


def device_of(network: nn.Module) -> torch.device:
    """Return where a network's first tensor lies, the CPU for one without."""
    tensors = chain(network.parameters(), network.buffers())
    return next((t.device for t in tensors), torch.device("cpu"))


class Observer(fx.Interpreter):
    """Runs a network and notes each node's activation, by the node's name."""

    def __init__(
        self,
        module: fx.GraphModule,
        *,
        keep: bool,
        names: Collection[str] | None,
        given: Given | None = None,
    ) -> None:
        """Watch the nodes of `module` called `names`, or all; `keep` values and means too."""
        super().__init__(module)
        self.keep = keep
        self.names = names
        self.given = given
        self.seen: dict[str, Activation] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a module, and show what it is given."""
        first = args[0] if args else kwargs.get("input")
        if self.given is not None and isinstance(first, Tensor):
            self.given(str(target), first)
        return super().call_module(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and look at its value."""
        value = super().run_node(n)
        watched = n.op != "output" and (self.names is None or n.name in self.names)
        if watched and isinstance(value, Tensor) and value.is_floating_point():
            self.seen.setdefault(n.name, Activation()).see(value, keep=self.keep)
        return value


@torch.no_grad()
def observe(
    network: fx.GraphModule,
    batches: Iterable[Tensor],
    *,
    keep: bool,
    precision: Precision = "float32",
    names: Collection[str] | None = None,
    given: Given | None = None,
) -> dict[str, Activation]:
    """Return what each node of `network`, or those called `names`, did on `batches`.

    `given` is called with the name of each module that is called, and its first input. With
    `precision` "bfloat16" the network runs in bfloat16 where machine and network can: the ends
    are then off by about 2^-8 of themselves, one code. `keep` collects values and means besides the
    ends. CompressionError for inputs that the network cannot take.
    """
    if precision not in get_args(Precision):
        raise CompressionError(f"precision must be float32 or bfloat16, found {precision!r}")
    device = device_of(network)
    observer = Observer(network, keep=keep, names=names, given=given)
    for number, batch in enumerate(input_batches(batches)):
        inputs = batch.to(device).float()
        if number == 0 and precision == "bfloat16" and has_bfloat16(device):
            observer = _bfloat16_observer(network, inputs, observer) or observer
        narrow = observer.module is not network
        try:
            observer.run(inputs.bfloat16() if narrow else inputs)
        except RuntimeError as error:
            raise CompressionError(
                f"calibration: the network cannot take inputs of shape {tuple(batch.shape)} ({error})"
            ) from error
    return observer.seen


def _bfloat16_observer(network: fx.GraphModule, inputs: Tensor, like: Observer) -> Observer | None:
    """Return an observer of the network in bfloat16; None where the network cannot run in it."""
    narrow = copy_model(network).bfloat16()
    # Its kernels are a third faster channels last, which a forward with view may not take.
    for order in (torch.channels_last, torch.contiguous_format):
        try:
            ordered: Any = narrow.to(memory_format=order)
            Observer(ordered, keep=False, names=()).run(inputs[:1].bfloat16())
        except RuntimeError:
            continue
        return Observer(ordered, keep=like.keep, names=like.names, given=like.given)
    return None


def ranges(seen: Mapping[str, Activation], method: Method) -> dict[str, Range]:
    """Return the range of each activation by `method`, one of METHODS.

    CompressionError for another method, and for activations that are not finite.
    """
    if method not in METHODS:
        raise CompressionError(
            f"calibration method must be one of {', '.join(METHODS)}, found {method!r}"
        )
    for name, activation in seen.items():
        if not bool(torch.isfinite(activation.low) & torch.isfinite(activation.high)):
            raise CompressionError(
                f"{name}: its activations in calibration are NaN, infinite or none at all; calibrate "
                "on finite inputs"
            )
    return {name: METHODS[method](activation) for name, activation in seen.items()}


def min_max(activation: Activation) -> Range:
    """Return the ends."""
    return activation.low, activation.high


def percentile(activation: Activation) -> Range:
    """Return the quantiles that leave a tail of 1 - PERCENTILE at either end."""
    values = torch.cat(activation.samples).sort().values
    tail = int((1 - PERCENTILE) * (len(values) - 1))
    return values[tail], values[-1 - tail]


def mse(activation: Activation) -> Range:
    """Return the range, a fraction of the ends, whose 8-bit codes err least."""
    values = torch.cat(activation.samples)
    low, high = activation.low.clamp(max=0), activation.high.clamp(min=0)
    best, least = (low, high), float("inf")
    for fraction in torch.linspace(1.0, 0.2, CANDIDATES):
        bottom, top = low * fraction, high * fraction
        scale = ((top - bottom) / 255).clamp(min=TINY)
        zero = torch.round(-bottom / scale)
        codes = (torch.round(values / scale) + zero).clamp_(0, 255)
        error = float(((codes - zero) * scale - values).square().mean())
        if error < least:
            best, least = (bottom, top), error
    return best


def entropy(activation: Activation) -> Range:
    """Return the threshold on magnitudes whose 128 levels lose least of the values' distribution."""
    magnitudes = torch.cat(activation.samples).abs()
    limit = float(torch.maximum(-activation.low, activation.high))
    if limit <= 0:
        return min_max(activation)
    counts = torch.histc(magnitudes[magnitudes > 0], BINS, 0, limit)
    divergences = [
        (float(_divergence(counts, kept)), kept) for kept in range(LEVELS, BINS + 1, LEVELS // 4)
    ]
    threshold = min(divergences)[1] / BINS * limit
    return activation.low.clamp(min=-threshold), activation.high.clamp(max=threshold)


def _divergence(counts: Tensor, kept: int) -> Tensor:
    """Return the divergence of `counts` from what LEVELS levels over the first `kept` bins tell."""
    wanted = counts[:kept].clone()
    wanted[-1] += counts[kept:].sum()  # what is clipped
    level = torch.arange(kept) * LEVELS // kept
    filled = (counts[:kept] > 0).float()
    sums = torch.zeros(LEVELS).index_add_(0, level, counts[:kept])
    sizes = torch.zeros(LEVELS).index_add_(0, level, filled)
    found = (sums / sizes.clamp(min=1))[level] * filled
    p, q = wanted / wanted.sum(), found / found.sum().clamp(min=1)
    both = (p > 0) & (q > 0)
    missed = p[(p > 0) & (q == 0)].sum()  # a finite price for what no level tells
    return (p[both] * (p[both] / q[both]).log()).sum() + missed * 10


METHODS: dict[Method, Callable[[Activation], Range]] = {
    "min-max": min_max,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
}
