from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression import semi_structured
from compression.errors import CompressionError
from compression.pruning import prune_n_of_m
from compression.quantization import cast
from compression.semi_structured import SemiStructuredModel, compress, lower_semi_structured
from tests.support.nets import images, residual
from tests.support.sparse_nets import (
    SPARSE,
    TOLERANCES,
    assert_close,
    pointwise_net,
    sparse_half,
    wide_images,
)


@pytest.fixture
def dense_product(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Let the dense product stand for the sparse one; return the weights that were given."""
    taken: list[Tensor] = []

    def take(weight: Tensor) -> Tensor:
        assert weight.ndim == 2
        assert weight.is_contiguous()
        taken.append(weight)
        return weight

    monkeypatch.setattr(semi_structured, "compress", take)
    return taken


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_lowered_layers_compute_what_the_dense_ones_do(
    dtype: torch.dtype, channels_last: bool, dense_product: list[Tensor]
) -> None:
    model, x = sparse_half(dtype), wide_images().to(dtype)
    if channels_last:
        model.to(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == SPARSE
    assert len(dense_product) == len(SPARSE)
    assert_close(lowered(x), model, x, dtype)
    assert_close(lowered(x[:1]), model, x[:1], dtype)
    assert [type(m) for m in model.modules()] == [type(m) for m in pointwise_net().modules()]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pixel_is_a_row_and_the_stride_skips_it(index: int, dense_product: list[Tensor]) -> None:
    model = sparse_half(torch.bfloat16)[index]
    x = torch.randn(2, model.in_channels, 9, 6).bfloat16()
    found, wanted = lower_semi_structured(model, x)(x), model(x)
    assert found.shape == wanted.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert_close(found, model, x, torch.bfloat16)


@torch.no_grad()
def test_a_cast_network_keeps_its_cast(dense_product: list[Tensor]) -> None:
    model = cast(prune_n_of_m(pointwise_net()), torch.bfloat16)
    lowered = lower_semi_structured(model, wide_images())
    assert lowered.sparse_layers == tuple(f"network.{n}" for n in (*SPARSE, "7"))
    found = lowered(wide_images())
    assert found.dtype == torch.float32
    assert_close(found, model.network, wide_images(), torch.bfloat16)


def layers_not_to_lower() -> dict[str, nn.Module]:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    return {
        "padded": nn.Conv2d(64, 64, 1, padding=1),
        "grouped": nn.Conv2d(64, 64, 1, groups=2),
        "wide": nn.Conv2d(64, 64, 3, padding=1),
        "line": nn.Conv1d(64, 64, 1),
        "transposed": nn.ConvTranspose2d(64, 64, 1),
        "subclass": Doubled(64, 64),
    }


@torch.no_grad()
@pytest.mark.parametrize("name", layers_not_to_lower())
def test_other_layers_stay_as_they_are(name: str, dense_product: list[Tensor]) -> None:
    shape = {"line": (2, 64, 8), "subclass": (2, 64)}.get(name, (2, 64, 8, 8))
    x = torch.randn(shape).bfloat16()
    model = prune_n_of_m(nn.Sequential(layers_not_to_lower()[name])).bfloat16()
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ()
    assert dense_product == []
    assert torch.equal(lowered(x), model(x))


@torch.no_grad()
def test_dense_and_float32_layers_stay_as_they_are(dense_product: list[Tensor]) -> None:
    for model in (pointwise_net().bfloat16(), prune_n_of_m(pointwise_net())):
        x = wide_images().to(next(model.parameters()).dtype)
        assert lower_semi_structured(model, x).sparse_layers == ()
    assert dense_product == []


@torch.no_grad()
def test_a_layer_whose_weight_alone_is_read_stays_as_it_is(dense_product: list[Tensor]) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.called, self.read = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.called(input=self.called(x)), self.read.weight)

    model, x = prune_n_of_m(Tied()).bfloat16(), torch.randn(4, 64).bfloat16()
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ("called",)
    assert_close(lowered(x), model, x, torch.bfloat16)


def refuse(error: Exception) -> Callable[[Tensor], Tensor]:
    def compress(weight: Tensor) -> Tensor:
        if weight.shape == (64, 32):
            raise error
        return weight

    return compress


@torch.no_grad()
@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, ValueError])
def test_what_torch_refuses_stays_dense(error, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semi_structured, "compress", refuse(error("shape")))
    model, x = sparse_half(torch.bfloat16), wide_images().bfloat16()
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ("0", "2", "6")
    assert_close(lowered(x), model, x, torch.bfloat16)


@torch.no_grad()
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, TypeError])
def test_an_error_that_is_no_refusal_is_not_hidden(error, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semi_structured, "compress", refuse(error("full")))
    with pytest.raises(error, match="full"):
        lower_semi_structured(sparse_half(torch.bfloat16), wide_images().bfloat16())


@torch.no_grad()
def test_a_convolution_of_a_single_image_without_a_batch_stays_dense(
    dense_product: list[Tensor],
) -> None:
    model, x = sparse_half(torch.bfloat16)[0], wide_images()[0].bfloat16()
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ()
    assert torch.equal(lowered(x), model(x))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_without_cuda_nothing_is_lowered(dtype: torch.dtype) -> None:
    model = sparse_half(dtype).train()
    lowered = lower_semi_structured(model, wide_images().to(dtype))
    assert model.training
    assert not any(m.training for m in lowered.modules())
    assert lowered.sparse_layers == ()
    assert torch.equal(lowered(wide_images().to(dtype)), model.eval()(wide_images().to(dtype)))
    with pytest.raises(RuntimeError, match="Only CUDA tensors"):
        compress(torch.zeros(32, 64, dtype=torch.bfloat16))


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_cast_network_predicts_as_before_without_cuda(dtype: torch.dtype) -> None:
    model = cast(prune_n_of_m(residual()), dtype)
    lowered = lower_semi_structured(model, images())
    assert isinstance(lowered, SemiStructuredModel)
    assert lowered.sparse_layers == ()
    assert torch.equal(lowered(images()), model(images()))


@torch.no_grad()
def test_a_layer_with_hooks_and_one_of_two_names_compute_the_same(
    dense_product: list[Tensor],
) -> None:
    layer = nn.Linear(64, 64)
    model = prune_n_of_m(nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(64, 64))).bfloat16()
    model[3].register_forward_hook(lambda _, __, outputs: 2 * outputs)
    x = torch.randn(4, 64).bfloat16()
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ("0",)
    assert lowered.network[0] is lowered.network[2]
    assert_close(lowered(x), model, x, torch.bfloat16)


def test_an_example_that_the_network_cannot_take_is_refused(dense_product: list[Tensor]) -> None:
    model = prune_n_of_m(nn.Sequential(nn.Linear(64, 64))).bfloat16()
    with pytest.raises(CompressionError, match="cannot take the example: 0: "):
        lower_semi_structured(model, torch.zeros(4, 8).bfloat16())
    assert dense_product == []
