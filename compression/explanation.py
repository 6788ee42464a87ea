"""What the techniques would do with each layer of a network, and why not, before any is called."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compression.channels import follow, free_channels, kept_reasons
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import images_first, preferred, try_executor
from compression.layers import COMPRESSIBLE, TRANSPOSED, alteration, check_model, left_out
from compression.quantization import StaticQuantizedModel, quantize_static
from compression.training import example_of

LAYERS = (
    *COMPRESSIBLE, *TRANSPOSED, nn.MultiheadAttention, nn.RNNBase, nn.Embedding,
    nn.LayerNorm, nn.GroupNorm,
)  # fmt: skip
"""What has a line: layers with weights that are not folded into another."""
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
COLUMNS = ("layer", "kind", "channels that may go", "INT8", "runs on", "why not")


@dataclass(frozen=True, slots=True)
class ExplainedLayer:
    """One layer: which of its channels may go, whether static INT8 takes it, and what would run it.

    - `free_channels` of `channels` may go, by remove_channels; None for a layer that makes none of its
      own, as a norm or a depthwise convolution.
    - `executor` is a name of EXECUTORS, or "torch" for what is computed in float32.
    - `reasons` say why channels stay, and why it is not INT8.
    """

    name: str
    kind: str
    free_channels: int | None
    channels: int | None
    int8: bool
    executor: str
    reasons: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        """Return its line, one text per column."""
        may_go = "" if self.channels is None else f"{self.free_channels} of {self.channels}"
        int8 = "yes" if self.int8 else "no"
        return self.name, self.kind, may_go, int8, self.executor, "; ".join(self.reasons)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A network's layers, and what holds for all of them; `print` shows a line per layer."""

    layers: tuple[ExplainedLayer, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a table of the layers, and the notes below."""
        rows = [COLUMNS, *(layer.cells() for layer in self.layers)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__


def explain(model: nn.Module, example: Any) -> Explanation:
    """Tell of each layer which channels may go, whether it would be INT8, and what would run it here.

    `example` is one batch of prepared inputs, or a Dataset, whose first counts. Nothing is trained and
    nothing is timed: channels are followed as by `remove_channels`, and the network is quantized as by
    `quantize_static` with fallback=True and given to the executors of the example's device, as by
    `deploy`. A recurrent layer or an embedding has no static codes: its line says what takes it. What a
    network is refused for stands in `notes`, and holds for all of its layers. CompressionError for a
    network without layers that have weights.

    >>> print(explain(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(4, 8)))
    ... # doctest: +ELLIPSIS
    layer  kind    channels that may go  INT8  runs on  why not
    0      Linear  16 of 16              yes   ...
    2      Linear  0 of 2                yes   ...its channels stay: they are the network's outputs
    """
    check_model(model)
    example = example_of(example)
    if not isinstance(example, Tensor):
        raise UnsupportedTypeError(
            f"explain: expected one tensor of inputs (N, ...), found {type(example).__name__}"
        )
    named = [(n, m) for n, m in model.named_modules() if isinstance(m, LAYERS)]
    if not named:
        kinds = ", ".join(sorted({type(m).__name__ for m in model.modules()}))
        raise CompressionError(f"explain: expected layers with weights, found {kinds}")
    notes: list[str] = []
    freedom, stay = _channels(model, example, notes)
    static = _Static(model, example, notes)
    layers = []
    for name, module in named:
        why = [reason for weight, reason in stay.items() if weight.rpartition(".")[0] == name]
        int8, executor, reason = static.of(name)
        free, total = freedom.get(name, (None, None))
        reasons = (*dict.fromkeys(why), *filter(None, (reason, "" if int8 else _taken(module))))
        layers.append(
            ExplainedLayer(name, type(module).__name__, free, total, int8, executor, reasons)
        )
    return Explanation((*layers, *static.operators({name for name, _ in named})), tuple(notes))


def _taken(module: nn.Module) -> str:
    """Tell of a recurrent layer or an embedding, for which static INT8 has no codes, what has."""
    if alteration(module) is not None:
        return ""
    if type(module) is nn.Embedding and module.max_norm is None:
        return "quantize_weights takes it"
    return "quantize_dynamic and quantize_weights take it" if type(module) in RECURRENT else ""


def _channels(
    model: nn.Module, example: Tensor, notes: list[str]
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Return how many of each layer's channels may go, and why those of whole layers stay."""
    try:
        channels = follow(model, (example,))
    except CompressionError as error:
        notes.append(f"no channel may go: {error}")
        return {}, {}
    return free_channels(channels), kept_reasons(channels) | channels.unknown


class _Static:
    """A network's INT8 form, and what would run it."""

    def __init__(self, model: nn.Module, example: Tensor, notes: list[str]) -> None:
        self.network: StaticQuantizedModel | None = None
        self.executor, self.in_float, self.without_kernel = "torch", dict[str, str](), set[str]()
        try:
            self.network = quantize_static(model, example, fallback=True)
        except CompressionError as error:
            notes.append(f"no layer is INT8: {error}")
            return
        self.in_float = left_out(self.network)
        self.executor = self._executor(self.network, example, notes)

    def _executor(self, network: StaticQuantizedModel, example: Tensor, notes: list[str]) -> str:
        network = images_first(network, example)
        for name in preferred(example.device.type):
            try:
                lowered, reason = try_executor(name, network, example)
            except CompressionError as error:
                reason = str(error)
            if reason is None:
                self.without_kernel = {*getattr(lowered, "stayed", ())} - self.in_float.keys()
                return name
            notes.append(f"not on executor {name}: {reason}")
        return "reference"

    def of(self, name: str) -> tuple[bool, str, str]:
        """Tell of a layer whether it is INT8, what runs it, and why it is not."""
        if self.network is None:
            return False, "torch", ""
        held = [n for n, _ in self.network.network.named_modules() if _within(n, name)]
        if not held:
            return False, "torch", "static INT8: an operator in float32 reads its weights"
        for place, reason in self.in_float.items():
            if _within(place, name) or _within(name, place):
                return False, "torch", reason
        if any(_within(layer, name) for layer in self.without_kernel):
            return True, "torch", f"executor {self.executor} has no kernel for it"
        return True, self.executor, ""

    def operators(self, layers: set[str]) -> Iterator[ExplainedLayer]:
        """Yield what is computed in float32 and is none of the layers."""
        for name, reason in self.in_float.items():
            if not any(_within(name, layer) or _within(layer, name) for layer in layers):
                yield ExplainedLayer(name, "operator", None, None, False, "torch", (reason,))


def _within(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")
