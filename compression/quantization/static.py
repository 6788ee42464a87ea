"""Static INT8: calibrate a traced network's activations, then lower it onto integer codes."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx, nn

from compression.affine import QParams
from compression.graph import fold_batch_norm, norms_as_convolutions
from compression.layers import compressible_layers
from compression.quantization.calibration import Range, observe, ranges
from compression.quantization.equalization import correct_bias, equalize
from compression.quantization.lowering import Lowering


class StaticQuantizedModel(nn.Module):
    """A network on int8 codes from its input to its last layer, run by the reference executor.

    The arithmetic is that of integers, carried out in float32: its accuracy is that of INT8, its
    speed is not (see modules.py). compression.integer runs it on integer kernels.
    """

    simulated = True

    def __init__(self, network: fx.GraphModule) -> None:
        """Take over a lowered network."""
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Return real logits of real inputs."""
        outputs: Tensor = self.network(inputs)
        return outputs


def quantize_static(
    model: nn.Module,
    calibration: Tensor | Iterable[Tensor],
    *,
    method: str = "min-max",
    equalization: bool = False,
    bias_correction: bool = False,
    precision: str = "float32",
) -> StaticQuantizedModel:
    """Return `model` as an INT8 network: batch norm folded, int8 weights and activations.

    `calibration` is one batch of prepared inputs or several; `method` chooses the activations' ranges
    from it (calibration.py), run in `precision`. Knows convolutions, linear layers, batch norm, ReLU
    and ReLU6, additions, concatenation, pooling, flatten and dropout; another operator raises
    UnsupportedTypeError with its name.
    Weights symmetric per channel, activations affine per tensor (Jacob et al. 2018, arXiv:1712.05877).
    """
    compressible_layers(model)
    folded = norms_as_convolutions(fold_batch_norm(model))
    if equalization:
        equalize(folded)
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    keep = bias_correction or method != "min-max"
    # The correction of biases looks at every layer's input, rounded there or not.
    names = None if bias_correction else rounded(folded, None)
    seen = observe(folded, batches, keep=keep, precision=precision, names=names)
    chosen = ranges(seen, method)
    if bias_correction:
        means = {n: torch.stack(a.means).mean(0) for n, a in seen.items() if a.means}
        correct_bias(folded, means)
    return lowered(folded, chosen)


def lowered(folded: fx.GraphModule, chosen: Mapping[str, Range]) -> StaticQuantizedModel:
    """Return a folded network lowered with the chosen ranges, on its own device."""
    device = next(folded.parameters()).device
    return StaticQuantizedModel(Lowering(folded, chosen).lower()).to(device)


def rounded(folded: fx.GraphModule, chosen: Mapping[str, Range] | None) -> Mapping[str, QParams]:
    """Return the nodes whose values will be rounded, by name: only their ranges are needed."""
    lowering = Lowering(folded, chosen)
    lowering.lower()
    return lowering.rounded


def empty_static(model: nn.Module) -> StaticQuantizedModel:
    """Return the INT8 network of `model`'s architecture, its ranges still to be loaded."""
    folded = norms_as_convolutions(fold_batch_norm(model))
    return StaticQuantizedModel(Lowering(folded, None).lower())
