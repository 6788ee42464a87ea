"""A network to try a function on, and the outcome."""

import copy
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.baseline.networks import drawn
from compression.architectures import TIMM
from compression.errors import CompressionError
from compression.quantization import StaticQuantizedModel, quantize_static

NUM_CLASSES = 10
IMAGES = 2
SIDE = 64
SIDES = {"vit": 224, "maxvit": 224, "inception_v4": 160, "inception": 96}
"""Of the networks that take no images of 64 pixels, by the beginning of their names."""
FIXED = "fixed_input_size"
"""Where timm says of a network that it takes images of one size."""


class WrongResultError(Exception):
    """A function accepted a network, and computed something else than it says."""


class Case:
    """A network of torchvision or timm with drawn weights, images for it, and its float64 outputs."""

    def __init__(self, name: str) -> None:
        """Draw the network and the images by seed 0."""
        self.name, self.model = name, draw_statistics(drawn(name, NUM_CLASSES))
        plain = name.removeprefix(TIMM)
        side = next((n for start, n in SIDES.items() if plain.startswith(start)), SIDE)
        told: Any = getattr(self.model, "default_cfg", {})
        side = told["input_size"][-1] if told.get(FIXED) else side
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(IMAGES, 3, side, side, generator=generator)
        self.wanted = in_float64(self.model, self.x)

    @cached_property
    def reference(self) -> StaticQuantizedModel:
        """The network in INT8, calibrated with its own images, on the reference executor."""
        return quantize_static(self.model, self.x)


@torch.no_grad()
def draw_statistics(model: nn.Module) -> nn.Module:
    """Draw in place what new networks have at 0 or 1, where a fault would not show.

    These are batch norms' means and variances, the weights of vision transformers' last layer, and
    their tokens and positions: as large as the patches that they are added to, which 8 bits hold too.
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistics, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.8, 1.2),
            ):
                if statistics is not None:
                    nn.init.uniform_(statistics, low, high)
    for name, weight in model.named_parameters():
        if any(word in name for word in ("_token", "pos_embed")):
            nn.init.normal_(weight, std=0.5)
        elif weight.ndim > 1 and not weight.any():
            nn.init.normal_(weight, std=0.02)
    return model


@dataclass(frozen=True, slots=True)
class Cell:
    """The outcome of a function on a network, and a number or a sentence about it."""

    outcome: Literal["ok", "refused", "WRONG"]
    about: str = ""


def cell_of(check: Callable[[Case], str], case: Case) -> Cell:
    """Return the outcome of a check, which raises WrongResultError; its function may refuse."""
    try:
        with torch.no_grad():
            return Cell("ok", check(case))
    except CompressionError as error:
        return Cell("refused", str(error))
    except WrongResultError as error:
        return Cell("WRONG", str(error))
    except Exception as error:  # not ours: a refusal must say what to do instead
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Cell("WRONG", f"{type(error).__name__} at {where}: {str(error)[:200]}")


def in_float64(model: nn.Module, x: Tensor) -> Tensor:
    """Return the outputs of a copy of `model` in float64."""
    with torch.no_grad():
        outputs: Tensor = copy.deepcopy(model).double()(x.double())
    return outputs


def sqnr(found: Tensor, wanted: Tensor) -> float:
    """Return the signal-to-quantization-noise ratio of `found` in dB; 999 for none, -999 for NaN."""
    noise = (found.double() - wanted.double()).norm()
    if not noise.isfinite() or found.shape != wanted.shape:
        return -999.0
    return float(20 * torch.log10(wanted.double().norm() / noise)) if noise else 999.0


def at_least(decibels: float, found: Tensor, wanted: Tensor) -> str:
    """Return the SQNR of `found` as text; WrongResultError below so many dB."""
    if found.shape != wanted.shape:
        raise WrongResultError(
            f"outputs of shape {tuple(found.shape)}, expected {tuple(wanted.shape)}"
        )
    measured = sqnr(found, wanted)
    if measured < decibels:
        raise WrongResultError(f"{measured:.1f} dB, expected at least {decibels:.1f} dB")
    return f"{measured:.0f}"


def require(right: bool, message: str) -> None:
    """Raise WrongResultError with the message unless it is right."""
    if not right:
        raise WrongResultError(message)


class _Products(TorchDispatchMode):
    """Counts multiply-accumulates where torch dispatches them: another count than torch's own."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        match func.overloadpacket.__name__:
            case "mm" | "bmm":
                self.total += out.numel() * args[0].shape[-1]
            case "addmm" | "baddbmm":
                self.total += out.numel() * args[1].shape[-1]
            case "convolution":
                self.total += out.numel() * args[1][0].numel()
            case "_scaled_dot_product_flash_attention_for_cpu":
                self.total += args[0].numel() * args[1].shape[-2] * 2
        return out


def products(model: nn.Module, image: Tensor) -> int:
    """Return the multiply-accumulates of `model` by another count than torch's own."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one operator hides the products
    try:
        with torch.no_grad(), _Products() as counted:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counted.total
