"""Quantization-aware training: rounding in the forward pass, straight through in the backward."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from compression.affine import QParams, choose_qparams, dequantize, quantize
from compression.distillation import HINTON, Distillation, taught
from compression.layers import copy_model, filters, unfilters
from compression.quantization.calibration import Method, device_of, observe, ranges
from compression.quantization.graph import plan_network
from compression.quantization.modules import Codes
from compression.quantization.plan import Layer, Plan
from compression.quantization.proof import Shown
from compression.quantization.sharing import shared_ranges
from compression.quantization.static import (
    StaticQuantizedModel,
    check_observed,
    check_sizes,
    float_graph,
    planned_network,
)
from compression.training import Labelled, Loss, Recipe, fit


def fake_quantize(x: Tensor, qparams: QParams) -> Tensor:
    """Return what the codes of `x` stand for; the gradient is 1 within their range and 0 beyond.

    float32, through the affine primitives (straight-through estimator: Bengio et al. 2013,
    arXiv:1308.3432; Jacob et al. 2018, arXiv:1712.05877, 3).
    """
    rounded: Tensor = _StraightThrough.apply(x.float(), qparams)
    return rounded


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, qparams: QParams) -> Tensor:
        bottom, top = (
            dequantize(torch.full_like(x, code, dtype=torch.int8), qparams)
            for code in (qparams.qmin, qparams.qmax)
        )
        ctx.save_for_backward((bottom <= x) & (x <= top))
        return dequantize(quantize(x, qparams), qparams)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (within,) = ctx.saved_tensors
        return gradients[0] * within, None


class FakeQuantizeActivation(Codes):
    """Rounds an activation to what fixed codes stand for."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the rounded activation."""
        qparams = QParams(self.output_scale, self.output_zero_point, symmetric=False)
        return fake_quantize(x, qparams)


class FakeQuantizeWeight(nn.Module):
    """Rounds a weight to symmetric codes per output channel, whose scales follow the weight."""

    def __init__(self, layer: nn.Module) -> None:
        """Give each filter of `layer` a scale of its own."""
        super().__init__()
        self._filters, self._unfilters = (
            partial(filters, layer=layer),
            partial(unfilters, layer=layer),
        )

    def forward(self, weight: Tensor) -> Tensor:
        """Return the rounded weight."""
        rows = self._filters(weight)
        return self._unfilters(fake_quantize(rows, choose_qparams(rows, axis=0)))


def quantize_aware(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    calibration: Tensor | Iterable[Any] | Labelled,
    *,
    method: Method = "min-max",
    fallback: bool = False,
    loss: Loss | None = None,
    teacher: nn.Module | None = None,
    distillation: Distillation = HINTON,
) -> StaticQuantizedModel:
    """Return `model` as an INT8 network trained by `recipe` with its rounding in the loop.

    Batch norm is folded first. The activations' ranges, chosen by `method` from `calibration`, stay;
    weights, biases and the weights' scales train on `train`. The result is that of quantize_static
    with the trained weights: training and deployment round the same values, the weights that attention
    gives to tokens apart. With `fallback` an operator that is not known stays in float32, and trains
    so. `loss` is that of `fit`, which a network of several outputs needs. A `teacher`, as a rule the
    float network, helps as in `distill`, by the loss `distillation`. Raises what quantize_static, `fit`
    and `distill` raise. Bengio et al. 2013, arXiv:1308.3432; Jacob et al. 2018, arXiv:1712.05877, 3.

    >>> from compression import Split
    >>> x = torch.randn(32, 4)
    >>> train = Split(x, (x[:, 0] > 0).long(), prepare=lambda x: x)
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> small = quantize_aware(net, train, Recipe(epochs=1, batch_size=16, learning_rate=0.1), x)
    >>> small(x[:3]).shape
    torch.Size([3, 2])
    """
    folded, batches, shown = float_graph(model, calibration, method, fallback=fallback)
    plan = plan_network(folded, fallback=fallback)
    seen = observe(folded, batches, keep=method != "min-max", names=plan.rounded)
    check_observed(plan, seen)
    qparams = plan.qparams(shared_ranges(plan, ranges(seen, method)))
    rehearsal = _rehearsal(folded, qparams, plan).to(device_of(folded))
    _check_images(rehearsal, shown)
    with taught(rehearsal, teacher, train, recipe, distillation, loss) as goal:
        fit(rehearsal, train, recipe, loss=goal)
    _copy_trained(rehearsal, folded)
    plan = plan_network(folded, fallback=fallback)  # whose constants have been trained
    return planned_network(plan, qparams, shown, model).to(device_of(folded))


def _rehearsal(folded: fx.GraphModule, values: Mapping[str, QParams], plan: Plan) -> fx.GraphModule:
    """Return a copy of `folded` that rounds the weights of its layers, and each value in `values`.

    A value whose rounding is kept stays as it is: what is lost of it is less than a float of 16 bits
    loses.
    """
    rehearsal: Any = copy_model(folded)
    fine = {node.name for node in plan.fine}
    for node in list(rehearsal.graph.nodes):
        if node.name in values.keys() - fine:
            name = f"round_{node.name}"
            rehearsal.add_submodule(name, FakeQuantizeActivation(values[node.name]))
            with rehearsal.graph.inserting_after(node):
                after = rehearsal.graph.call_module(name, (node,))
            node.replace_all_uses_with(after, lambda user, after=after: user is not after)
    rehearsal.recompile()
    rounded = [item.layer for item in plan.items if isinstance(item, Layer)]
    for name in [n for n, m in folded.named_modules() if any(m is layer for layer in rounded)]:
        layer = rehearsal.get_submodule(name)
        rounding = FakeQuantizeWeight(layer)
        parametrize.register_parametrization(layer, "weight", rounding, unsafe=True)
    network: fx.GraphModule = rehearsal
    return network


def _check_images(rehearsal: fx.GraphModule, shown: Shown) -> None:
    """Have a network refuse, from now on, images of other sizes than it was followed for."""
    if shown.sizes is None:
        return
    images = next(node for node in rehearsal.graph.nodes if node.op == "placeholder")
    with rehearsal.graph.inserting_after(images):
        rehearsal.graph.call_function(check_sizes, (shown.sizes, images))
    rehearsal.recompile()


@torch.no_grad()
def _copy_trained(rehearsal: nn.Module, folded: nn.Module) -> None:
    """Give `folded` the parameters that were trained, and the statistics that followed them."""
    trained = dict(rehearsal.named_parameters()) | dict(rehearsal.named_buffers())
    for name, tensor in [*folded.named_parameters(), *folded.named_buffers()]:
        layer, _, field = name.rpartition(".")
        plain = f"{layer}.parametrizations.{field}.original"
        tensor.copy_(trained[plain] if plain in trained else trained[name])
