"""Residual streams keep what rounding leaves, and nothing else does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compression.affine import QParams, dequantize, quantize
from compression.errors import CompressionError
from compression.quantization import (
    StaticQuantizedModel,
    quantize_aware,
    quantize_static,
)
from compression.quantization import modules as q
from compression.quantization.norm import MOST_FINE_CODES
from compression.quantization.sums import REST_STEPS, rest_of
from compression.storage import load, save
from compression.training import Recipe, Split
from tests.support import transformer_nets
from tests.support.compared import decibels
from tests.support.integer_nets import numbers
from tests.support.planned import quantize_planned
from tests.support.strategies import examples
from tests.support.streams import FIRST, Stream, stream, streams
from tests.support.tricky_nets import Net

FAR_BETTER_DB = 12.0
"""What keeping the rest gains at least, where tokens differ by 50 times; 37 dB were measured."""


def rests(model: StaticQuantizedModel) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, q.QuantizedRest)]


def fine_norms(model: StaticQuantizedModel) -> list[bool]:
    return [m.fine for m in model.modules() if isinstance(m, q.QuantizedLayerNorm)]


def coarse(model: nn.Module, x: Tensor) -> StaticQuantizedModel:
    """Static INT8 as it was before streams were kept."""
    return quantize_planned(model, x, streams=False)


# Which sums of a stream of three blocks: those that a norm and a sum read, the last one where a norm
# reads it, and what the first is made of.
KEPT = {"tokens": 2, "position": 3, "class token": 4, "sum": 3}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("first", FIRST)
def test_which_sums_keep_what_rounding_leaves(
    first: str, *, ended: bool, swapped: bool, moved: bool
) -> None:
    model, x = stream(first=first, ended=ended, swapped=swapped, moved=moved)
    small = quantize_static(model, x)
    assert len(rests(small)) == KEPT[first] + ended
    # the first norm of tokens reads a layer's output
    assert fine_norms(small).count(True) == 2 + (first != "tokens") + ended


def _after(s: Any, x: Tensor) -> Tensor:
    """Norms after each sum, as in the first transformers: they are what the next sums add to."""
    x = s.norm(x + s.a(x))
    return s.other(x + s.b(x))  # type: ignore[no-any-return]


PLAIN: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "convnext": transformer_nets.convnext,
    "norms after sums": lambda: (
        Net(_after, a=nn.Linear(6, 6), b=nn.Linear(6, 6), norm=nn.LayerNorm(6), other=nn.LayerNorm(6)),
        numbers(4, 5, 6),
    ),
    "a norm beside a sum": lambda: (
        Net(lambda s, x: s.norm(y := s.a(x) + x) + s.b(y), a=nn.Linear(6, 6), b=nn.Linear(6, 6),
            norm=nn.LayerNorm(6)),
        numbers(4, 5, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_other_sums_do_not(name: str) -> None:
    model, x = PLAIN[name]()
    small = quantize_static(model.eval(), x)
    assert rests(small) == []
    assert not any(fine_norms(small))


def test_a_layer_takes_in_a_sum_that_is_of_no_stream() -> None:
    layers = {"a": nn.Linear(6, 6), "b": nn.Linear(6, 6), "drop": nn.Dropout(0.5)}
    model = Net(lambda s, x: s.b((y := s.a(x)) + s.drop(s.b(y))), **layers).eval()
    network = quantize_static(model, numbers(4, 6)).network
    assert network.get_submodule("b").residual_scale is not None


@torch.no_grad()
def test_a_small_token_survives_beside_large_ones() -> None:
    """A new ViT's class token is a fiftieth of its patches, and LayerNorm makes both as large."""
    model, x = stream(first="class token", batch=8, large=1.0)
    model.embed.weight *= 50
    model.position *= 0.02
    first = Net(lambda s, x: s.net(x)[:, 0], net=model).eval()
    wanted = first(x)
    found = [decibels(wanted, how(first, x)(x)) for how in (quantize_static, coarse)]
    assert found[0] - found[1] > FAR_BETTER_DB, found


@settings(max_examples=examples(1.0))
@given(st.data())
def test_a_sum_is_its_codes_and_their_rest(data: st.DataObject) -> None:
    """To half a step of the rest, wherever the sum lies in its range."""
    scales = st.floats(2.0**-10, 2.0**10, width=32)
    zeros = st.integers(-128, 127)
    params = [
        QParams(torch.tensor(data.draw(scales)), torch.tensor(data.draw(zeros), dtype=torch.int32),
                symmetric=False)
        for _ in range(data.draw(st.integers(2, 3)) + 1)
    ]  # fmt: skip
    *inputs, output = params
    codes = [torch.randint(-128, 128, (50,), dtype=torch.int8) for _ in inputs]
    join = q.QuantizedJoin(inputs, output, dim=None)
    rounded = join(*codes)
    rest = q.QuantizedRest(join, inputs, output)(rounded, *codes)
    parts = [dequantize(c, p).double() for c, p in zip(codes, inputs, strict=True)]
    wanted = sum(parts[1:], parts[0])
    found = dequantize(rounded, output).double() + dequantize(rest, rest_of(output)).double()
    inside = (rounded > -128) & (rounded < 127)
    # half a step of the rest, a whole one where it is the last code; and float32's own error
    most = output.scale.double() / REST_STEPS + 4e-7 * sum(part.abs() for part in parts)
    assert ((found - wanted).abs() <= most)[inside].all()


@settings(max_examples=examples(0.5))
@given(st.integers(1, 40), st.floats(2.0**-10, 10, width=32), st.sampled_from((1e-12, 1e-5, 1.0)))
def test_a_norm_reads_codes_and_their_rest(channels: int, scale: float, eps: float) -> None:
    norm = nn.LayerNorm(channels, eps=eps)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    before = QParams(torch.tensor(scale), torch.tensor(3, dtype=torch.int32), symmetric=False)
    after = QParams(torch.tensor(0.03), torch.tensor(-5, dtype=torch.int32), symmetric=False)
    codes, rest = torch.randint(-128, 128, (2, 9, channels), dtype=torch.int8)
    small = q.QuantizedLayerNorm(norm, before, after, "norm", rest=rest_of(before))
    x = dequantize(codes, before).double() + dequantize(rest, rest_of(before)).double()
    wanted = quantize(norm.double()(x).float(), after)
    assert ((small(codes, rest).short() - wanted.short()).abs() <= 1).all()


def test_rows_too_long_for_whole_numbers_are_read_without_the_rest() -> None:
    one = QParams(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), symmetric=False)
    norm = nn.LayerNorm(MOST_FINE_CODES + 1)
    with pytest.raises(CompressionError, match=f"norm: .* rows of 1 to {MOST_FINE_CODES} numbers"):
        q.QuantizedLayerNorm(norm, one, one, "norm", rest=rest_of(one))

    def twice(s: Any, x: Tensor) -> Tensor:
        x = x + s.conv(x)
        x = x + s.conv(s.norm(x))
        return s.norm(x)  # type: ignore[no-any-return]

    sides = (4, MOST_FINE_CODES // 4 + 1)
    layers = {"conv": nn.Conv2d(1, 1, 1), "norm": nn.LayerNorm(sides)}
    small = quantize_static(Net(twice, **layers).eval(), numbers(2, 1, *sides))
    assert fine_norms(small) == [False, False]


@pytest.mark.parametrize("entropy_coded", [False, True])
def test_files_tell_whether_rests_are_kept(tmp_path: Path, *, entropy_coded: bool) -> None:
    model, x = stream()
    sizes = []
    for how in (quantize_static, coarse):
        small = how(model, x)
        sizes.append(save(small, tmp_path / "small", entropy_coded=entropy_coded))
        again = load(tmp_path / "small", lambda: Stream(20, 3))
        assert again.shown == small.shown
        assert torch.equal(again(x), small(x))
    assert sizes[0] > sizes[1]


def test_constants_are_stored_once(tmp_path: Path) -> None:
    """The class token and the position stand in the sum and in its rest."""
    model, x = stream(1000, 1, tokens=20)
    small = quantize_static(model, x)
    names = [name for name, _ in small.named_buffers(remove_duplicate=False) if "held" in name]
    assert len(names) == 4
    more = save(small, tmp_path / "small") - save(coarse(model, x), tmp_path / "coarse")
    assert 0 < more < 4096


def test_training_with_rounding_rounds_no_sum_whose_rest_is_kept() -> None:
    model, x = stream()
    train = Split(x.repeat(4, 1, 1), torch.arange(12) % 4, prepare=lambda x: x)
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1e-9)
    mean = Net(lambda s, x: s.net(x).mean(1), net=model).eval()
    trained = quantize_aware(mean, train, recipe, x)
    assert rests(trained)
    assert torch.equal(trained(x), quantize_static(mean, x)(x))


@settings(max_examples=examples(0.2))
@given(streams(large=(1.0,)))
@torch.no_grad()
def test_any_stream_is_near_the_float_network(made: tuple[Stream, Tensor]) -> None:
    model, x = made
    small = quantize_static(model, x)
    assert decibels(model(x), small(x)) > 15
