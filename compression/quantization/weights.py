"""Weight-only quantization: integer codes in memory and file, arithmetic in the network's dtype."""

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from compression.affine import check_bits
from compression.batches import run_batches
from compression.errors import UnsupportedTypeError
from compression.layers import CONVOLUTIONS, TRANSPOSED, filters, unfilters
from compression.quantization.coded import (
    CodedWeight,
    WeightQuantizedEmbedding,
    WeightQuantizedRecurrent,
    without,
)
from compression.quantization.hessians import Hessians
from compression.quantization.replacement import LATER, Codes, Prepare, replace_layers
from compression.training import Labelled

# The last is the output projection of attention that stays whole: a linear layer that only its
# parent's type hides.
KINDS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED, NonDynamicallyQuantizableLinear)
_FUNCTIONS = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class WeightQuantizedLayer(CodedWeight):
    """A convolution or linear layer whose weight is dequantized at each call."""

    layer: Any

    def __init__(
        self, layer: nn.Module, name: str, codes: Codes | None = None, **options: Any
    ) -> None:
        """Make codes of the weight of `layer`, per filter or per group of weights, or take them."""
        if type(layer) not in KINDS:
            raise UnsupportedTypeError(
                f"{name}: weight-only quantization knows linear layers and convolutions, found "
                f"{type(layer).__name__}"
            )
        weight: Any = layer.weight
        rows = filters(weight.detach(), layer)
        super().__init__(weight, rows, f"{name}.weight", codes, **options)
        self.layer = without(layer, "weight")

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the layer, which its parent may read: its bias, its features."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "layer":
                raise
            return getattr(self.layer, name)

    @property
    def weight(self) -> Tensor:
        """The weight that the codes stand for, in the network's dtype."""
        return unfilters(self.rows(), self.layer).to(self.like.dtype)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Apply the layer with its dequantized weight; only transposed ones take `output_size`."""
        layer: Any = self.layer
        if isinstance(layer, nn.Linear):
            return F.linear(input, self.weight, layer.bias)
        if not isinstance(layer, TRANSPOSED):
            outputs: Tensor = layer._conv_forward(input, self.weight, layer.bias)
            return outputs
        size = [*layer.kernel_size]
        added = layer._output_padding(
            input,
            output_size,
            [*layer.stride],
            [*layer.padding],
            size,
            len(size),
            [*layer.dilation],
        )
        options: Any = (layer.stride, layer.padding, added, layer.groups, layer.dilation)
        return _FUNCTIONS[len(size) - 1](input, self.weight, layer.bias, *options)


def quantize_weights(
    model: nn.Module,
    *,
    num_bits: int = 8,
    group_size: int | None = None,
    calibration: Tensor | Iterable[Any] | Labelled | None = None,
    keep: Collection[str] = (),
) -> nn.Module:
    """Return a copy whose layers hold weights as symmetric codes of 2 to 8 bits.

    There is one scale per output channel or embedded row, or one for each `group_size` consecutive
    weights of it. The arithmetic stays in the network's dtype, and weights are dequantized at each
    call; deploy runs them on kernels that unpack them, or dequantizes them once. nn.MultiheadAttention
    is written out as q_proj, k_proj, v_proj and out_proj, which are linear layers; nn.LSTM, nn.GRU and
    nn.RNN hold codes of each matrix; of nn.Embedding the rows that are looked up are dequantized. What
    stays in float is listed by left_out: bilinear layers, recurrent cells, subclasses of layers, layers
    with hooks, and those whose dotted names are in `keep`. CompressionError where that is every layer.

    With `calibration`, prepared inputs as quantize_static takes them, weights of linear layers and
    convolutions are rounded so that outputs err least on these (GPTQ, Frantar et al. 2022,
    arXiv:2210.17323), by the same scales. Else, and where no call reaches a layer, each is rounded to
    the nearest code. CompressionError for inputs that the network cannot take.

    >>> small = quantize_weights(nn.Sequential(nn.Linear(64, 8)), num_bits=4, group_size=32)
    >>> small[0].codes.shape, small[0].scale.shape
    (torch.Size([8, 64]), torch.Size([8, 2]))
    """
    check_bits(num_bits)  # before calibration, which may take hours
    options: Any = {"num_bits": num_bits, "group_size": group_size}
    prepare = partial(_round_layers, calibration=calibration, **options)
    return make_weights(
        model, keep=keep, prepare=None if calibration is None else prepare, **options
    )


def _round_layers(
    network: nn.Module, layers: Mapping[str, nn.Module], *, calibration: Any, **options: Any
) -> None:
    """Round those `layers` of `network`, in place, that its calls on `calibration` reach."""
    hessians = Hessians({name: layer for name, layer in layers.items() if type(layer) in KINDS})
    hooks = [
        layer.register_forward_pre_hook(partial(_look, hessians, name), with_kwargs=True)
        for name, layer in hessians.layers.items()
    ]
    try:
        run_batches(network, calibration, "calibration")
    finally:
        for hook in hooks:
            hook.remove()
    hessians.put(hessians.rounded(**options))


def _look(hessians: Hessians, name: str, _: nn.Module, args: Any, kwargs: Any) -> None:
    hessians.see(name, args[0] if args else kwargs["input"])


def make_weights(
    model: nn.Module,
    *,
    num_bits: int,
    group_size: int | None,
    keep: Collection[str] = (),
    attention: Collection[str] | None = None,
    later: Collection[str] | None = None,
    prepare: Prepare | None = None,
) -> nn.Module:
    """Return what quantize_weights does, with the attention and LATER layers at these names alone."""
    options: Any = {"num_bits": num_bits, "group_size": group_size}

    def make(layer: Any, name: str, codes: Codes | None) -> nn.Module:
        if isinstance(layer, nn.RNNBase):
            return WeightQuantizedRecurrent(layer, name, **options)
        if isinstance(layer, nn.Embedding):
            return WeightQuantizedEmbedding(layer, name, codes, **options)
        return WeightQuantizedLayer(layer, name, codes, **options)

    return replace_layers(
        model,
        KINDS + LATER,
        make,
        verb="weight-only quantization",
        keep=keep,
        attention=attention,
        later=later,
        prepare=prepare,
    )
