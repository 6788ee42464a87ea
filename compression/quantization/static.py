"""Static INT8: plan a traced network on integer codes, calibrate it, then build it."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor, fx, nn

from compression.affine import QParams
from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph import fold_row_norms, norms_as_convolutions
from compression.layers import compressible_layers, record_left_out
from compression.modes import ExecutorModel, in_own_precision
from compression.narrow import record_widths, recorded_widths
from compression.quantization.build import build_network
from compression.quantization.calibration import Method, Precision, device_of, observe, ranges
from compression.quantization.cast import CastModel
from compression.quantization.equalization import correct_bias, equalize, unshare_layers
from compression.quantization.fallback import OTHER
from compression.quantization.fusion import fuse
from compression.quantization.graph import plan_network
from compression.quantization.hessians import KINDS, Hessians, Rounding, check_rounding
from compression.quantization.plan import Float, Plan
from compression.quantization.proof import Shown, trace_and_verify, trace_in_float32
from compression.quantization.replacement import CodedLayer
from compression.quantization.rewriting import rewrite
from compression.quantization.sharing import shared_ranges
from compression.training import Labelled, input_batches


class StaticQuantizedModel(ExecutorModel):
    """A network on int8 codes from its input to its last layer, run by the reference executor.

    The arithmetic is that of integers, carried out in floats: its accuracy is that of INT8, its
    speed is not (see modules.py). compression.integer runs it on integer kernels.
    """

    def __init__(self, network: fx.GraphModule, shown: Shown | None = None) -> None:
        """Take over a network on codes, and what a batch showed of the one that it was made of."""
        super().__init__()
        self.network = network
        self.shown = shown or Shown()

    def forward(self, inputs: Tensor) -> Any:
        """Return real outputs of real inputs, in the float network's structure."""
        check_sizes(self.shown.sizes, inputs)
        with in_own_precision(inputs):
            return self.network(inputs)

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> "StaticQuantizedModel":
        """Move to another device; codes and scales keep their dtype: else they would change."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if found.dtype == tensor.dtype else tensor.to(found.device)

        super()._apply(moved, recurse)
        return self


def quantize_static(
    model: nn.Module,
    calibration: Tensor | Iterable[Any] | Labelled,
    *,
    method: Method = "min-max",
    rounding: Rounding = "nearest",
    weight_bits: int = 8,
    equalization: bool = False,
    bias_correction: bool = False,
    precision: Precision = "float32",
    fallback: bool = False,
) -> StaticQuantizedModel:
    """Return `model` as an INT8 network: batch norm folded, int8 weights and activations.

    Weights are symmetric per output channel, activations affine per tensor, those that are only
    concatenated by one range; sums of a residual stream keep what rounding leaves. Inputs and outputs
    are float32, whatever the model's dtype, and so are sums and linear interpolations that outputs
    alone read of last layers (Jacob et al. 2018, arXiv:1712.05877).

    calibration      one batch of prepared inputs or several, alone or in pairs (inputs, labels); a
                     DataLoader, Dataset or split of them
    method           how ranges are chosen: "min-max", "percentile", "mse", "entropy" (calibration.py)
    rounding         of weights: "nearest", or "gptq", whose outputs err least on these inputs (gptq.py)
    weight_bits      2 to 8: how many codes a weight has; of fewer than 8 they are spread over int8, for
                     the same kernels and, entropy-coded, smaller files
    equalization     rescales channels between pairs of convolutions first (Nagel et al. 2019,
    bias_correction  takes out what rounding adds on average               arXiv:1906.04721)
    precision        "float32", or "bfloat16", in which calibration runs where the machine has it
    fallback         leaves an operator that is not known in float32, between codes; left_out names it

    The network takes one tensor. It returns one, or several in tuples, lists, dictionaries and
    dataclasses, which come back as they are, each tensor by its own scale. Known are convolutions,
    linear layers, batch norm, LayerNorm, attention (whole, one operator, or written out; with constant
    masks), activations (SiLU, GELU, sigmoid, ...: a table of 256 codes), clamps, additions,
    differences, products, concatenation (of parameters too), pooling, means, reshaping, slices,
    splits, shuffles, nearest and linear interpolation and dropout. A forward that branches on sizes is
    followed for images of the first batch's, and then takes no others; so are borders, sums over axes
    and norms of groups of channels. Another operator raises UnsupportedTypeError with its name and
    place before calibration, and so does a network whose traced graph computes something else on the
    first batch. CompressionError for unknown options and for inputs that the network cannot take.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> quantize_static(net, torch.randn(16, 4))(torch.randn(3, 4)).shape
    torch.Size([3, 2])
    """
    check_rounding(rounding, weight_bits)
    rounds = rounding != "nearest" or weight_bits < 8
    folded, batches, shown = float_graph(model, calibration, method, fallback=fallback)
    if equalization or bias_correction or rounds:
        unshare_layers(folded)
    if equalization:
        equalize(folded)
    keep = bias_correction or method != "min-max"
    # Before calibration, which may take hours: it refuses operators that are not known.
    plan = plan_network(folded, fallback=fallback)
    # The correction of biases looks at every layer's input, rounded there or not.
    watched = None if bias_correction else plan.rounded
    hessians = Hessians(_layers(folded) if rounds else {})
    given = hessians.see if rounding == "gptq" else None
    seen = observe(folded, batches, keep=keep, precision=precision, names=watched, given=given)
    check_observed(plan, seen)
    chosen = ranges({name: seen[name] for name in plan.rounded}, method)
    rounded = hessians.rounded(num_bits=weight_bits)
    if bias_correction:
        means, last = (
            _averages({name: getattr(found, field) for name, found in seen.items()})
            for field in ("means", "last_means")
        )
        correct_bias(folded, means, last, rounded)
    hessians.put(rounded)
    qparams = plan.qparams(shared_ranges(plan, chosen))
    return planned_network(plan, qparams, shown, model).to(device_of(folded))


def _layers(folded: fx.GraphModule) -> dict[str, nn.Module]:
    """Return the layers that are rounded before they are built, by the targets of their calls.

    A norm's scale per channel is none of them: it keeps 8 bits.
    """
    return {name: m for name, m in folded.named_modules() if type(m) in KINDS}


def _averages(means: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return the means over all batches, of values whose axis is one of channels, not of images."""
    return {
        name: torch.stack(found).mean(0)
        for name, found in means.items()
        if len({mean.shape for mean in found}) == 1
    }


def check_observed(plan: Plan, seen: Container[str]) -> None:
    """Raise UnsupportedTypeError for a value to be rounded that was seen to be no tensor of reals."""
    for name, place in plan.rounded.items():
        if name not in seen:
            raise UnsupportedTypeError(
                f"{place}, {name}: expected one tensor of real numbers, found something else; {OTHER}"
            )


def planned_network(
    plan: Plan, qparams: Mapping[str, QParams], shown: Shown, model: nn.Module
) -> StaticQuantizedModel:
    """Return the network of a plan, and what is told of it beside its codes.

    That is what `shown` does not say yet of streams and the tail, what stays in float, and the widths
    of `model`.
    """
    network = build_network(plan, qparams)
    shown = replace(shown, streams=bool(plan.fine), tail=bool(plan.tail))
    static = StaticQuantizedModel(network, shown)
    record_widths(static, recorded_widths(model))
    why = "static INT8 does not know its operator: it is computed in float32"
    record_left_out(static, {item.name: why for item in plan.items if isinstance(item, Float)})
    return static


def float_graph(
    model: nn.Module, calibration: Any, method: Method, *, fallback: bool
) -> tuple[fx.GraphModule, Iterable[Tensor], Shown]:
    """Return the folded graph of `model`, tried on the first batch, and all batches of inputs.

    Beside them stands what the first batch shows. A network that cannot be followed for images of any
    size, or whose operators are not known so, is followed for images of the first batch's.
    """
    check_float(model)
    compressible_layers(model)
    ranges({}, method)
    batches = input_batches(calibration)
    first = next(batches)

    @cache
    def followed(sized: bool) -> tuple[fx.GraphModule, Shown]:
        traced, shown = trace_and_verify(model, first, sized=sized)
        return _folded(traced, shown), shown

    refusals: list[tuple[bool, UnsupportedTypeError]] = []
    for in_float, sized in product((False, True)[: 1 + fallback], (False, True)):
        folded = None
        try:
            folded, shown = followed(sized)
            plan_network(folded, fallback=in_float)
        except UnsupportedTypeError as error:
            refusals.append((folded is not None, error))
        else:
            return folded, chain([first], batches), shown
    (_, any_size), (was_followed, one_size) = refusals[-2:]
    raise one_size if was_followed else any_size


def _folded(traced: fx.GraphModule, shown: Shown) -> fx.GraphModule:
    """Return the network that is planned: batch norms folded, in operators that are known."""
    return fuse(norms_as_convolutions(fold_row_norms(rewrite(traced), shown.token_norms)))


def check_sizes(sizes: tuple[int, ...] | None, inputs: Tensor) -> None:
    """Raise CompressionError for images of other sizes than a network was followed for."""
    if sizes is not None and tuple(inputs.shape[1:]) != sizes:
        raise CompressionError(
            f"the network was quantized for images (N, {', '.join(map(str, sizes))}), on whose sizes "
            f"its forward branches, found {tuple(inputs.shape)}; quantize it again for others"
        )


def check_float(model: nn.Module) -> None:
    """Raise UnsupportedTypeError for a network, or a part of one, that is on codes or cast already."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, CodedLayer | CastModel | ExecutorModel):
            raise UnsupportedTypeError(
                f"{name or 'the network'}: expected layers in float, found {type(module).__name__}, "
                "which is compressed or deployed already; take the float network that it was made of"
            )


def empty_static(model: nn.Module, shown: Shown) -> StaticQuantizedModel:
    """Return the INT8 network of `model`'s architecture, its ranges still to be loaded."""
    traced = trace_in_float32(model, shown.windows, shown.sizes)
    folded = _folded(traced, shown)
    plan = plan_network(folded, fallback=True, streams=shown.streams, tail=shown.tail)
    return StaticQuantizedModel(build_network(plan, plan.qparams(None)), shown)
