"""Torch's semi-structured tensors: on the CPU with the product faked, on a GPU as they are."""

import pytest
import torch
from torch import Tensor, nn
from torch.sparse import SparseSemiStructuredTensor, SparseSemiStructuredTensorCUTLASS
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass as to_cutlass,
)
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_to_dense_cutlass as from_cutlass,
)

from benchmarks.machine.kernels import kernels_of
from compression.pruning import is_n_of_m, prune_n_of_m
from compression.quantization import cast
from compression.semi_structured import SEMI_STRUCTURED_KERNELS, lower_semi_structured
from tests.support.sparse_nets import (
    SPARSE,
    TOLERANCES,
    assert_close,
    pointwise_net,
    sparse_half,
    wide_images,
)

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def cutlass(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Run torch's own sparse tensors on the CPU: only the two products are computed by unpacking.

    Returns the right-hand sides of the products.
    """
    seen: list[Tensor] = []

    def mm(packed: Tensor, meta: Tensor, right: Tensor) -> Tensor:
        assert right.is_contiguous() or right.t().is_contiguous()
        seen.append(right)
        return from_cutlass(packed, meta) @ right

    def addmm(bias: Tensor, packed: Tensor, meta: Tensor, right: Tensor) -> Tensor:
        return mm(packed, meta, right) + bias[:, None]

    monkeypatch.setattr(torch, "_sparse_semi_structured_mm", mm)
    monkeypatch.setattr(torch, "_sparse_semi_structured_addmm", addmm)
    monkeypatch.setattr(SparseSemiStructuredTensor, "_FORCE_CUTLASS", True)
    monkeypatch.setattr(
        SparseSemiStructuredTensorCUTLASS, "_validate_device_dim_dtype_shape", lambda _: None
    )
    return seen


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_torchs_sparse_tensors_carry_the_lowered_network(
    dtype: torch.dtype, cutlass: list[Tensor]
) -> None:
    with torch.inference_mode(False), torch.no_grad():
        model, x = sparse_half(dtype), wide_images().to(dtype)
        lowered = lower_semi_structured(model, x)
        assert lowered.sparse_layers == SPARSE
        assert len(cutlass) == len(SPARSE)
        assert_close(lowered(x), model, x, dtype)
    assert len(cutlass) == 2 * len(SPARSE)
    assert_close(lowered(x[:1]), model, x[:1], dtype)  # other shapes, other dispatch


@torch.no_grad()
def test_rows_with_a_step_between_them_are_packed_first(cutlass: list[Tensor]) -> None:
    model = prune_n_of_m(nn.Linear(64, 32)).bfloat16()
    model.weight = nn.Parameter(model.weight.t().contiguous().t())
    x = torch.randn(8, 2, 64).bfloat16()[:, 0]
    lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == ("",)
    assert_close(lowered(x), model, x, torch.bfloat16)
    assert_close(lowered(x[0]), model, x[0], torch.bfloat16)  # no batch


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_pattern_is_the_one_that_the_kernels_take(dtype: torch.dtype) -> None:
    for layer in (nn.Linear(128, 64), nn.Conv2d(128, 64, 1)):
        pruned = prune_n_of_m(nn.Sequential(layer)).to(dtype).get_parameter("0.weight")
        weight = pruned.detach().flatten(1)
        assert torch.equal(from_cutlass(*to_cutlass(weight)), weight)
        dense = layer.weight.detach().flatten(1).to(dtype)
        assert not torch.equal(from_cutlass(*to_cutlass(dense)), dense)


def test_the_kernels_are_torchs() -> None:
    for names in SEMI_STRUCTURED_KERNELS:
        for name in names:
            space, operator = name.split("::")
            assert hasattr(getattr(torch.ops, space), operator), name


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_kernels_compute_what_the_dense_layers_do(dtype: torch.dtype) -> None:
    with torch.inference_mode(False):
        model = sparse_half(dtype).cuda()
        x = wide_images(16).to("cuda", dtype)
        lowered = lower_semi_structured(model, x)
    assert lowered.sparse_layers == SPARSE
    for batch in (x, x[:1], x[:5]):
        assert_close(lowered(batch), model, batch, dtype)


@pytest.mark.gpu
@needs_cuda
def test_the_profiler_sees_the_kernels() -> None:
    model = cast(prune_n_of_m(pointwise_net()), torch.float16).cuda()
    x = wide_images(16).cuda()
    lowered = lower_semi_structured(model, x)
    sparse = {name for names in SEMI_STRUCTURED_KERNELS for name in names}
    assert sum(kernels_of(lowered, x)[name] for name in sparse) == len(lowered.sparse_layers)
    assert not sparse & set(kernels_of(model, x))
    assert len(lowered.sparse_layers) >= len(SPARSE)


@pytest.mark.gpu
@needs_cuda
def test_a_shape_without_a_kernel_stays_dense() -> None:
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 7), nn.Linear(7, 64)).eval()
    half = prune_n_of_m(model).to("cuda", torch.float16)
    x = torch.randn(8, 64, device="cuda", dtype=torch.float16)
    assert is_n_of_m(half[1].weight)
    lowered = lower_semi_structured(half, x)
    assert lowered.sparse_layers == ("0",)  # 7 outputs
    assert_close(lowered(x), half, x, torch.float16)
