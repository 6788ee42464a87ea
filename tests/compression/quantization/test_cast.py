"""Half precision of networks of other people: what they hold, take and return."""

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from compression.errors import CompressionError, UnsupportedTypeError
from compression.pruning import prune_l1_unstructured
from compression.quantization import (
    CastModel,
    cast,
    quantize_static,
    quantize_weights,
    round_vectors,
)
from compression.storage import load, save
from tests.support.nets import images, residual

# dtype: (largest relative error, reason)
TOLERANCES = {
    torch.float16: (0.003, "2^-12 of each weight, some layers"),
    torch.bfloat16: (0.03, "2^-9 of each weight and value, some layers"),
}
DTYPES = list(TOLERANCES)


@dataclasses.dataclass
class Found:
    logits: Tensor
    hidden: tuple[Tensor, ...]


Pair = namedtuple("Pair", ["logits", "index"])


class Made(nn.Module):
    """A network of given layers and a given forward."""

    def __init__(self, how: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.how = how
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.how(self, *inputs, **named)


def language() -> nn.Module:
    layers = {"e": nn.Embedding(9, 8), "l": nn.LSTM(8, 8, 2), "o": nn.Linear(8, 9)}
    model = Made(lambda m, tokens: m.o(m.l(m.e(tokens))[0]), **layers)
    model.o.weight = model.e.weight
    return model


def unsaved() -> nn.Module:
    model = Made(lambda m, x: F.conv2d(m.c(x), m.k, groups=3), c=nn.Conv2d(3, 3, 1))
    model.register_buffer("k", torch.ones(3, 1, 2, 2) / 4, persistent=False)
    return model


def shared() -> nn.Module:
    layer = nn.Linear(8, 8)
    return nn.Sequential(layer, nn.ReLU(), layer)


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]] = {
    "tokens and a tied output": (language, lambda: (torch.tensor([[1, 2], [3, 4]]),)),
    "a buffer that is not saved": (unsaved, lambda: (torch.randn(1, 3, 4, 4),)),
    "one module of two names": (shared, lambda: (torch.randn(4, 8),)),
    "attention": (encoder, lambda: (torch.randn(2, 3, 8),)),
    "two inputs": (lambda: nn.Bilinear(8, 6, 4), lambda: (torch.randn(2, 8), torch.randn(2, 6))),
    "a bag": (
        lambda: nn.EmbeddingBag(9, 4),
        lambda: (torch.tensor([1, 2, 3]), torch.tensor([0, 1])),
    ),
    "a packed sequence": (
        lambda: nn.GRU(8, 4),
        lambda: (pack_padded_sequence(torch.randn(5, 2, 8), torch.tensor([5, 3])),),
    ),
    "a sum with what forward makes": (
        lambda: Made(lambda m, x: m.a(x) + torch.ones(4), a=nn.Linear(8, 4)),
        lambda: (torch.randn(2, 8),),
    ),
}


def tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, tuple):
        for part in outputs:
            yield from tensors(part)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_outputs_are_those_in_float32(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    make, inputs = NETWORKS[name]
    model, x = make().eval(), inputs()
    narrow = cast(model, dtype)
    before = [t.dtype for t in [*narrow.parameters(), *narrow.buffers()]]
    for _ in range(2):  # the second prediction is made by what the first one left
        pairs = zip(tensors(model(*x)), tensors(narrow(*x)), strict=True)
        for right, found in pairs:
            assert found.dtype == right.dtype
            error = (found - right).double().norm() / right.double().norm().clamp(min=1e-9)
            assert error < TOLERANCES[dtype][0]
    assert [t.dtype for t in [*narrow.parameters(), *narrow.buffers()]] == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_collections_keep_their_types(dtype: torch.dtype) -> None:
    def forward(m: nn.Module, x: Tensor, *, scale: Tensor, more: dict[str, Tensor]) -> Any:
        logits = m.a(x * scale + more["shift"])
        return OrderedDict(
            found=Found(logits, (logits, logits)),
            pair=Pair(logits, logits.argmax(1)),
            top=torch.topk(logits, 2),
            list=[logits, None, "text", 3],
        )

    model = Made(forward, a=nn.Linear(8, 4))
    found = cast(model, dtype)(
        torch.randn(2, 8), scale=torch.ones(8), more={"shift": torch.zeros(8)}
    )
    assert isinstance(found, OrderedDict)
    assert isinstance(found["found"], Found)
    assert isinstance(found["pair"], Pair)
    assert isinstance(found["top"], torch.return_types.topk)
    assert found["list"][1:] == [None, "text", 3]
    assert found["found"].hidden[1].dtype == found["top"].values.dtype == torch.float32
    assert found["pair"].index.dtype == torch.int64


def test_an_output_of_another_type_is_refused() -> None:
    class Answer:
        pass

    with pytest.raises(UnsupportedTypeError, match=r"outputs: .* found Answer"):
        cast(Made(lambda *_: Answer(), a=nn.Linear(2, 2)), torch.bfloat16)(torch.ones(1, 2))


def test_a_forward_that_mixes_dtypes_is_named() -> None:
    inner = Made(lambda m, _: m.a(torch.zeros(2, 8)), a=nn.Linear(8, 4))
    model = cast(Made(lambda m, x: m.inner(x), inner=inner), torch.bfloat16)
    with pytest.raises(CompressionError, match=r"inner\.a: the forward mixes .*x\.new_zeros"):
        model(torch.randn(2, 8))
    # In float32, as float16 is computed on a CPU, there is nothing to mix.
    assert cast(Made(lambda m, x: m.inner(x), inner=inner), torch.float16)(torch.ones(1)).numel()


def test_a_tensor_that_a_network_does_not_cast_is_refused() -> None:
    for value in (torch.ones(2), [torch.ones(2)], {"a": (torch.ones(2),)}):
        model = residual()
        model.relu.anchors = value
        with pytest.raises(UnsupportedTypeError, match=r"relu\.anchors: .* register_buffer"):
            cast(model, torch.float16)
    model.relu.anchors = torch.arange(3)
    assert isinstance(cast(model, torch.float16), CastModel)


def test_what_is_cast_or_lowered_already_is_refused() -> None:
    for model in (cast(residual(), torch.float16), quantize_static(residual(), images())):
        with pytest.raises(UnsupportedTypeError, match="the model: expected a network of real"):
            cast(model, torch.bfloat16)


def test_an_unsaved_buffer_beyond_float16_is_named() -> None:
    model = unsaved()
    model.k.mul_(1e6)
    with pytest.raises(CompressionError, match=r"k: 2\.5e\+05 is beyond"):
        cast(model, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_are_kept(dtype: torch.dtype) -> None:
    narrow = cast(prune_l1_unstructured(language(), amount=0.5), dtype)
    assert narrow.network.o.weight is narrow.network.e.weight
    narrow(torch.tensor([[1]]))
    assert narrow.network.o.weight is narrow.network.e.weight


def test_vectors_of_a_float16_network_stay_finite() -> None:
    model = nn.Linear(2, 2).half()
    with torch.no_grad():
        model.bias.fill_(torch.finfo(torch.float16).max)
    assert torch.isfinite(round_vectors(model).bias).all()


class Masked(nn.Module):
    """Attention's scores with a causal mask in a buffer, as GPT-like networks keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
        self.register_buffer("row", torch.tensor([0.0, 0.0, -torch.inf, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.query(x) @ self.key(x).transpose(1, 2)
        return (scores + self.mask + self.row).softmax(-1)  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize("technique", ["round_vectors", "float16", "bfloat16", "weights"])
@torch.no_grad()
def test_a_mask_of_minus_infinity_stays(technique: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Masked().eval(), torch.randn(2, 4, 8)
    made: nn.Module = {
        "round_vectors": lambda: round_vectors(net),
        "float16": lambda: cast(net, torch.float16),
        "bfloat16": lambda: cast(net, torch.bfloat16),
        "weights": lambda: quantize_weights(net),
    }[technique]()
    assert (made(x) - net(x)).abs().max() <= 0.02, "8 bits on two layers"
    assert torch.equal(made(x) == 0, net(x) == 0)
    save(made, tmp_path / "net.safetensors", entropy_coded=True)
    assert torch.equal(load(tmp_path / "net.safetensors", Masked)(x), made(x))
