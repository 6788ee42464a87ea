"""Values that are the same for each image are found out once, wherever the images are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.graph import number_nodes, trace
from compression.quantization import modules as q
from compression.quantization import quantize_aware, quantize_static
from compression.quantization.fallback import constants_of
from compression.quantization.proof import trace_in_float32
from compression.quantization.repeated import repeated_constants
from compression.storage import load, save
from compression.training import Recipe, Split
from tests.support.integer_nets import numbers
from tests.support.transformer_nets import detector
from tests.support.tricky_nets import Net

How = Callable[[Any, Tensor], Tensor]


def net(how: How) -> nn.Module:
    torch.manual_seed(0)
    own = nn.Parameter(torch.randn(1, 5, 6))
    made = Net(how, a=nn.Linear(6, 6), norm=nn.LayerNorm(6), mix=nn.Linear(5, 5))
    made.own, made.rows = own, nn.Parameter(torch.randn(5, 6))
    return made.eval()


def tokens(s: Any, x: Tensor) -> Tensor:
    return s.own.expand(x.shape[0], -1, -1)  # type: ignore[no-any-return]


def rows(s: Any, x: Tensor) -> Tensor:
    return s.rows.unsqueeze(1).repeat(1, x.size(0), 1)  # type: ignore[no-any-return]


# What is read at the end -> the axis of its images, None for what is not the same for each.
VALUES: dict[str, tuple[How, int | None]] = {
    "a class token": (tokens, 0),
    "queries, images second": (rows, 1),
    "a layer of it": (lambda s, x: s.norm(s.a(tokens(s, x))), 0),
    "a layer of it, images second": (lambda s, x: s.a(rows(s, x)), 1),
    "moved": (lambda s, x: rows(s, x).transpose(0, 1).flatten(2), 0),
    "moved to the end": (lambda s, x: tokens(s, x).permute(1, 2, 0), 2),
    "two of them": (lambda s, x: rows(s, x).transpose(0, 1) + tokens(s, x), 0),
    "by its own size": (lambda s, x: (t := tokens(s, x)).reshape(t.shape[0], 30), 0),
    "attention among them": (
        lambda s, x: F.scaled_dot_product_attention(t := tokens(s, x), t, s.a(t)),
        0,
    ),
    "behind a permutation of images": (
        lambda s, x: tokens(s, x.permute(0, 2, 1).flatten(1)), 0,
    ),
    "behind parts of images": (
        lambda s, x: tokens(s, x.unflatten(-1, (2, 3)).chunk(2, 2)[1][:, 1:]), 0,
    ),
    "behind a view of images": (
        lambda s, x: tokens(s, x.view(x.shape[0], 30).unsqueeze(1).transpose(-2, -1)), 0,
    ),
    "behind such a value and images": (lambda s, x: tokens(s, torch.cat([tokens(s, x), x], 1)), 0),
    "behind parts, images second": (
        lambda s, x: tokens(s, x.unflatten(-1, (2, 3)).permute(2, 0, 1, 3).unbind(0)[1]), 0,
    ),
    "by the images' own axis": (
        lambda s, x: s.own.expand(x.movedim(1, 0).shape[1], -1, -1), 0,
    ),
    "as many as tokens": (lambda s, x: tokens(s, x.transpose(0, 1)), None),
    "as many as rows of all images": (lambda s, x: tokens(s, x.flatten(0, 1)), None),
    "rows of all images": (lambda s, x: tokens(s, x).flatten(0, 1), None),
    "each image its own": (lambda s, x: tokens(s, x).cumsum(0), None),
    "drawn": (lambda s, x: tokens(s, x) + torch.rand_like(tokens(s, x)), None),
    "an image's": (lambda s, x: tokens(s, x) + x, None),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
@torch.no_grad()
def test_what_is_the_same_for_each_image(name: str) -> None:
    how, axis = VALUES[name]
    model = net(lambda s, x: how(s, x) * 1.0)
    traced = trace(model)
    found = repeated_constants(traced, constants_of(traced), number_nodes(traced.graph))
    (end,) = next(n for n in traced.graph.nodes if n.op == "output").all_input_nodes
    if axis is None:
        assert end not in found
        return
    value, where = found[end]
    assert where == axis
    images = how(model, numbers(4, 5, 6))
    torch.testing.assert_close(value.expand_as(images), images)


MEETING: dict[str, How] = {
    "a sum": lambda s, x: s.a(x) + s.a(tokens(s, x)),
    "a product": lambda s, x: s.a(x) * s.norm(tokens(s, x)),
    "a concatenation": lambda s, x: s.a(torch.cat([s.norm(tokens(s, x)), x], 1)),
    "a concatenation, images second": lambda s, x: s.a(
        torch.cat([rows(s, x), s.a(x.transpose(0, 1))], 0)
    ).transpose(0, 1),
    "a sum, images second": lambda s, x: (s.a(x.transpose(0, 1)) + rows(s, x)).transpose(0, 1),
    "queries": lambda s, x: F.scaled_dot_product_attention(s.a(tokens(s, x)), s.a(x), x),
    "keys": lambda s, x: F.scaled_dot_product_attention(s.a(x), s.a(tokens(s, x)), x),
    "values": lambda s, x: F.scaled_dot_product_attention(s.a(x), x, s.norm(tokens(s, x))),
    "a sum and queries": lambda s, x: F.scaled_dot_product_attention(
        t := s.a(tokens(s, x)), x, s.norm(s.a(x) + t)
    ),
}


@pytest.mark.parametrize("name", MEETING)
@torch.no_grad()
def test_they_meet_images(name: str, tmp_path: Path) -> None:
    model, x = net(MEETING[name]), numbers(4, 5, 6)
    small, wanted = quantize_static(model, x), model(x)
    for images in (x, x[:1], x[:0]):
        assert small(images).shape == model(images).shape
    assert (small(x) - wanted).norm() <= 0.04 * wanted.norm(), "codes of 8 bits"
    save(small, tmp_path / "small")
    assert torch.equal(load(tmp_path / "small", lambda: net(MEETING[name]))(x), small(x))


def test_layers_of_constants_alone_are_not_computed() -> None:
    model, x = detector(batch_first=True)
    layers = dict(quantize_static(model, x).network.named_modules())
    assert not [name for name in layers if "decoder.layers.0.self_attn" in name]
    assert sum(isinstance(layer, q.RepeatedCodes) for layer in layers.values()) == 1


def test_training_with_rounding_trains_them() -> None:
    model, x = detector(batch_first=True)
    mean = Net(lambda s, x: s.net(x).mean(1), net=model).eval()
    train = Split(x.repeat(4, 1, 1, 1), torch.arange(12) % 4, prepare=lambda x: x)
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.05)
    before, after = quantize_static(mean, x), quantize_aware(mean, train, recipe, x)
    (name,) = (name for name in before.state_dict() if name.endswith("_repeated.held"))
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])


def test_a_constant_that_is_returned_is_refused() -> None:
    def both(s: Any, x: Tensor) -> Any:
        return s.a(x), s.a(tokens(s, x))

    with pytest.raises(UnsupportedTypeError, match=r"returns tensors.*found a constant"):
        quantize_static(net(both), numbers(4, 5, 6))


def test_written_decoders_compute_what_torch_does() -> None:
    for first in (False, True):
        model, x = detector(batch_first=True, norm_first=first)
        torch.testing.assert_close(trace_in_float32(model, {})(x), model(x))
