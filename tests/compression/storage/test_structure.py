"""The structure of compressed networks, as a file tells it: read, and made again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError, CompressionError
from compression.layers import copy_model
from compression.quantization import cast, quantize_dynamic, quantize_weights
from compression.storage import load, save
from compression.storage.structure import restructure, structure_of
from tests.support.kinds import KINDS
from tests.support.nets import images, mlp, residual


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_network_takes_the_state_of_a_quantized_one(kind: str) -> None:
    quantized = KINDS[kind](residual())
    structure = structure_of(quantized)
    assert structure is not None
    again = restructure(residual(seed=3), structure)
    again.load_state_dict(quantized.state_dict(), strict=True)
    with torch.no_grad():
        wanted = quantized.eval()(images())
        assert torch.equal(again.eval()(images()), wanted)
        assert torch.equal(copy_model(quantized)(images()), wanted)


def test_a_float_network_has_no_structure_and_an_unknown_one_is_refused() -> None:
    assert structure_of(mlp()) is None
    with pytest.raises(CheckpointError, match="unknown structure"):
        restructure(mlp(), {"kind": "ternary"})


COMPOSED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weights of dynamic": lambda m: quantize_weights(quantize_dynamic(m), num_bits=4),
    "dynamic of weights": lambda m: quantize_dynamic(quantize_weights(m, num_bits=4, keep=("fc",))),
    "cast dynamic": lambda m: cast(quantize_dynamic(m), torch.bfloat16),
    "cast weights": lambda m: cast(quantize_weights(m, num_bits=4, group_size=8), torch.float16),
    "cast both": lambda m: cast(quantize_weights(quantize_dynamic(m)), torch.float16),
    "weights of cast": lambda m: quantize_weights(cast(m, torch.bfloat16)),
    "all but one": lambda m: quantize_weights(m, keep=("conv1",)),
}


@pytest.mark.parametrize("name", COMPOSED)
@torch.no_grad()
def test_compositions_load_and_predict_the_same(name: str, tmp_path: Path) -> None:
    model, x = COMPOSED[name](residual()), torch.randn(2, 3, 8, 8)
    wanted = model(x)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors", lambda: residual(seed=5))
    assert structure_of(again) == structure_of(model)
    assert torch.equal(again(x), wanted)


def test_layers_of_two_kinds_of_codes_are_refused_by_name() -> None:
    model = quantize_weights(quantize_weights(residual(), keep=("fc",)), num_bits=4)
    with pytest.raises(CompressionError, match="one num_bits and group_size for all layers"):
        structure_of(model)
