"""Widths in files: those that are no narrower form of the network are refused, and take no memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compression.errors import CheckpointError, CompressionError
from compression.narrow import make_narrow, recorded_widths
from compression.removal import remove_channels
from compression.storage import load
from compression.storage.structure import restructure
from tests.support.storage_faults import forge, refuses, saved


class Every(nn.Module):
    """A layer of each kind that has widths, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(4, 8, 3, groups=2), nn.ConvTranspose2d(8, 8, 2, groups=4)
        self.norm, self.group, self.act = nn.BatchNorm2d(8), nn.GroupNorm(4, 8), nn.PReLU(8)
        self.table, self.fc = nn.Embedding(5, 8), nn.Linear(8, 6)
        self.mix = nn.MultiheadAttention(8, 4, add_bias_kv=True)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.count = 8


WIDTHS: dict[str, tuple[dict[str, Any], str]] = {
    "no layer": ({"head": {"out_features": 2}}, "no module 'head'"),
    "no object": ({"fc": 3}, "no module 'fc' of widths 3"),
    "text": ({"fc": {"out_features": "2"}}, "fc.out_features: expected 1 to 6, found '2'"),
    "truth": ({"fc": {"out_features": True}}, "found True"),
    "fraction": ({"fc": {"out_features": 2.0}}, "found 2.0"),
    "nothing": ({"fc": {"out_features": None}}, "found None"),
    "zero": ({"conv": {"in_channels": 0}}, "conv.in_channels: expected 1 to 4, found 0"),
    "negative": ({"norm": {"num_features": -8}}, "norm.num_features: expected 1 to 8, found -8"),
    "larger": ({"fc": {"in_features": 9}}, "fc.in_features: expected 1 to 8, found 9"),
    "bomb": ({"table": {"embedding_dim": 10**12}}, "expected 1 to 8, found 1000000000000"),
    "another number": ({"table": {"num_embeddings": 2}}, "Embedding has no width 'num_embeddings'"),
    "kernel": ({"conv": {"kernel_size": [1, 1]}}, "Conv2d has no width 'kernel_size'"),
    "method": ({"fc": {"forward": 1}}, "Linear has no width 'forward'"),
    "dunder": ({"fc": {"__class__": 1}}, "Linear has no width '__class__'"),
    "own": ({"": {"count": 4}}, "Every has no width 'count'"),
    "groups": ({"conv": {"groups": 2, "out_channels": 7}}, "4 to 7 channels in 2 groups"),
    "groups of inputs": ({"up": {"in_channels": 6}}, "6 to 8 channels in 4 groups"),
    "groups of a norm": ({"group": {"num_channels": 6}}, "6 channels in 4 groups"),
    "shape of fewer axes": (
        {"": {"scale": [4]}},
        r"scale: expected at most \[8, 1, 1\], found \[4\]",
    ),
    "larger shape": ({"": {"scale": [8, 1, 10**9]}}, r"scale: expected at most \[8, 1, 1\]"),
    "empty shape": ({"": {"scale": [0, 1, 1]}}, r"scale: expected at most \[8, 1, 1\]"),
    "shape of text": ({"": {"scale": "811"}}, "scale: expected at most"),
    "shape of truths": ({"": {"scale": [True, 1, 1]}}, "scale: expected at most"),
    "shape of a module": ({"": {"fc": [1, 1]}}, "Every has no width 'fc'"),
    "half a head": (
        {f"mix.{name}_proj": {"out_features": 3} for name in "qkv"}
        | {"mix.out_proj": {"in_features": 3}, "mix": {"bias_k": [1, 1, 3], "bias_v": [1, 1, 3]}},
        r"mix: expected one number of channels of whole heads, of 2 each, found \[3\]",
    ),
    "heads of one projection": (
        {"mix.q_proj": {"out_features": 4}},
        r"mix: expected one number of channels of whole heads, of 2 each, found \[4, 8\]",
    ),
    "more heads": (
        {"mix.k_proj": {"out_features": 10}},
        "mix.k_proj.out_features: expected 1 to 8, found 10",
    ),
    "heads by number": ({"mix": {"num_heads": 2}}, "MultiheadAttention has no width 'num_heads'"),
    "another projection": ({"mix.in_proj": {"out_features": 4}}, "no module 'mix.in_proj'"),
    "heads of another layer": ({"fc.q_proj": {"out_features": 4}}, "no module 'fc.q_proj'"),
    "heads of the network": ({"q_proj": {"out_features": 4}}, "no module 'q_proj'"),
    "numbers": ({"act": {"num_parameters": 0}}, "act.num_parameters: expected 1 to 8, found 0"),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_hostile_widths_are_refused(name: str) -> None:
    widths, message = WIDTHS[name]
    with pytest.raises(CompressionError, match=message):
        restructure(Every(), {"kind": "channels", "widths": widths})


@pytest.mark.parametrize("widths", [None, [], 3, "wide"])
def test_widths_of_another_form_are_refused(widths: Any) -> None:
    with pytest.raises(CheckpointError, match="unknown structure"):
        restructure(Every(), {"kind": "channels", "widths": widths})


def test_narrow_layers_have_the_shapes_that_they_say() -> None:
    widths = {
        "conv": {"in_channels": 2, "out_channels": 6},
        "up": {"groups": 3, "in_channels": 6, "out_channels": 6},
        "norm": {"num_features": 6},
        "group": {"num_channels": 6, "num_groups": 3},
        "act": {"num_parameters": 6},
        "table": {"embedding_dim": 3},
        "fc": {"in_features": 6, "out_features": 1},
        "mix": {"bias_k": [1, 1, 4], "bias_v": [1, 1, 4]},
        **{f"mix.{name}_proj": {"in_features": 6, "out_features": 4} for name in "qkv"},
        "mix.out_proj": {"in_features": 4, "out_features": 3},
        "": {"scale": [6, 1, 1]},
    }
    model = make_narrow(Every(), widths)
    assert recorded_widths(model) == widths
    assert {name: tuple(t.shape) for name, t in model.state_dict().items()} == {
        "scale": (6, 1, 1),
        "conv.weight": (6, 1, 3, 3),
        "conv.bias": (6,),
        "up.weight": (6, 2, 2, 2),
        "up.bias": (6,),
        "norm.weight": (6,),
        "norm.bias": (6,),
        "norm.running_mean": (6,),
        "norm.running_var": (6,),
        "norm.num_batches_tracked": (),
        "group.weight": (6,),
        "group.bias": (6,),
        "act.weight": (6,),
        "table.weight": (5, 3),
        "fc.weight": (1, 6),
        "fc.bias": (1,),
        **{f"mix.{name}_proj.weight": (4, 6) for name in "qkv"},
        **{f"mix.{name}_proj.bias": (4,) for name in "qkv"},
        "mix.out_proj.weight": (3, 4),
        "mix.out_proj.bias": (3,),
        "mix.bias_k": (1, 1, 4),
        "mix.bias_v": (1, 1, 4),
    }


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


FORGED: dict[str, Any] = {
    "wider than the tensors": {"0": {"out_features": 8}},
    "narrower than the tensors": {"0": {"out_features": 1}, "2": {"in_features": 1}},
    "one side only": {"0": {"out_features": 4}},
    "larger": {"0": {"out_features": 10**9}, "2": {"in_features": 4}},
    "zero": {"0": {"out_features": 0}},
    "another module": {"7": {"out_features": 4}},
    "no object": {"0": [4]},
    "text": "4",
    "tensor": {"0": {"weight": [2, 2]}, "2": {"in_features": 4}},
}


@pytest.mark.parametrize("name", FORGED)
def test_files_of_hostile_widths_are_refused_by_name(name: str, tmp_path: Path) -> None:
    model = remove_channels(net(), torch.randn(3, 4), macs=0.5, multiple_of=4)
    data = saved(model)

    def change(_: Any, about: dict[str, Any]) -> None:
        about["structure"]["widths"] = FORGED[name]

    assert forge(lambda *_: None, data) == data
    refuses(tmp_path / "model", forge(change, data), factory=net)


def test_a_factory_of_another_width_is_refused(tmp_path: Path) -> None:
    data = saved(remove_channels(net(), torch.randn(3, 4), macs=0.5, multiple_of=4))
    narrow = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    refuses(
        tmp_path / "model", data, match="0.out_features: expected 1 to 2", factory=lambda: narrow
    )
    (tmp_path / "model").write_bytes(data)
    assert load(tmp_path / "model", net)[0].weight.shape == (4, 4)  # type: ignore[index]
