"""The table's columns, and the checks that belong to no other room."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage import quantized, removed, sparse
from benchmarks.coverage.case import NUM_CLASSES, Case, at_least, products, require
from compression.accounting import count_macs
from compression.architectures import Architecture
from compression.layers import left_out
from compression.recalibration import recalibrate_batch_norm
from compression.storage import load, save

STATISTICS = {torch.float64: 200.0, torch.float32: 15.0}
"""dB that means and variances keep of those by hand, in float64.

In float32 little is left where maps are of one pixel: a norm divides by the deviation of two numbers.
"""


def check_recalibrate(case: Case) -> str:
    """Each batch norm holds the mean and variance of what it reads; one without inputs is listed."""
    results = {
        dtype: recalibrate_batch_norm(copy.deepcopy(case.model).to(dtype), case.x.to(dtype))
        for dtype in STATISTICS
    }
    wanted = _statistics_by_hand(copy.deepcopy(case.model).double(), case.x.double())
    for name, module in case.model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            old: Any = module
            mean, variance = wanted.get(name, (old.running_mean, old.running_var))
            for dtype, result in results.items():
                new: Any = result.get_submodule(name)
                at_least(STATISTICS[dtype], new.running_mean, mean)
                at_least(STATISTICS[dtype], new.running_var, variance)
                require(name in wanted or name in left_out(result), f"{name} is not listed")
    return f"{len(wanted)} norms"


def _statistics_by_hand(network: nn.Module, x: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the mean and variance of what each batch norm reads, by its name."""
    statistics: dict[str, tuple[Tensor, Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):

            def remember(_: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
                statistics[name] = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))

            module.train().register_forward_pre_hook(remember)
    network(x)
    return statistics


def check_count_macs(case: Case) -> str:
    """Multiply-accumulates of one image, in millions."""
    image = case.x[:1]
    found, wanted = count_macs(case.model, image), products(case.model, image)
    require(found == wanted, f"{found} multiply-accumulates, expected {wanted}")
    return f"{found / 1e6:.0f}"


def check_storage(case: Case) -> str:
    """What is loaded by the architecture's name is what was saved, bit for bit; the file in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.safetensors"
        size = save(case.model, path, architecture=Architecture(case.name, NUM_CLASSES))
        loaded = load(path).eval()
    tensors = [[*m.named_parameters(), *m.named_buffers()] for m in (case.model, loaded)]
    for (name, before), (_, after) in zip(*tensors, strict=True):
        require(torch.equal(before, after), f"{name} differs")
    require(torch.equal(loaded(case.x), case.model(case.x)), "the outputs differ")
    return f"{size / 2**20:.1f}"


COLUMNS: tuple[tuple[str, Callable[[Case], str]], ...] = (
    ("fold_batch_norm", quantized.check_fold_batch_norm),
    ("quantize_static, dB", quantized.check_static),
    ("deploy", quantized.check_deploy),
    ("ONNX Runtime, dB", quantized.check_onnx),
    ("quantize_dynamic, dB", quantized.check_dynamic),
    ("quantize_weights 8 bits, dB", quantized.check_8_bits),
    ("4 bits, dB", quantized.check_4_bits),
    ("cast float16, dB", quantized.check_float16),
    ("bfloat16, dB", quantized.check_bfloat16),
    ("prune_l1_unstructured", sparse.check_l1_unstructured),
    ("prune_l1_global", sparse.check_l1_global),
    ("prune_ln_structured", sparse.check_ln_structured),
    ("prune_n_of_m", sparse.check_n_of_m),
    ("share_weights", sparse.check_share_weights),
    ("remove_channels, % of MACs, parameters", removed.check_remove_channels),
    ("recalibrate_batch_norm", check_recalibrate),
    ("count_macs, millions", check_count_macs),
    ("save, load, MiB", check_storage),
)
