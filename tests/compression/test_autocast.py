"""Networks on codes within torch.autocast: a teacher is called there, and so are parts of a network."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compression import deploy, quantize_dynamic, quantize_static, quantize_weights


def images() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3), nn.SiLU(), nn.Softsign(),
        nn.Conv2d(32, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


def rows() -> nn.Sequential:
    return nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 5)).eval()


def static(network: nn.Module, inputs: Tensor) -> nn.Module:
    return quantize_static(network, inputs, fallback=True)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], Callable[..., nn.Module]]] = {
    "reference": (images, (4, 3, 10, 10), static),
    "deployed": (images, (4, 3, 10, 10), lambda net, x: deploy(static(net, x), x)),
    "onednn": (images, (4, 3, 10, 10), lambda net, x: deploy(static(net, x), x, executor="onednn")),
    "dynamic": (rows, (4, 24), lambda net, _: quantize_dynamic(net)),
    "dynamic layers": (rows, (4, 24), lambda net, x: deploy(quantize_dynamic(net), x)),
    "layers of weights": (rows, (4, 24), lambda net, x: deploy(quantize_weights(net), x)),
}


@pytest.mark.parametrize("how", NETWORKS)
def test_codes_are_multiplied_exactly_within_autocast(how: str) -> None:
    make, shape, compress = NETWORKS[how]
    torch.manual_seed(0)
    inputs = torch.randn(shape)
    network = compress(make(), inputs)
    with torch.no_grad():
        wanted = network(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.is_autocast_enabled("cpu")
            found = network(inputs)
    assert found.dtype == wanted.dtype == torch.float32
    assert found.equal(wanted)


@pytest.mark.parametrize("compress", [quantize_dynamic, quantize_weights])
@pytest.mark.parametrize("layer", [nn.Linear(24, 8), nn.GRU(24, 8)], ids=["linear", "gru"])
def test_deployed_layers_take_what_layers_before_them_made_in_bfloat16(
    layer: nn.Module, compress: Callable[[nn.Module], nn.Module]
) -> None:
    inputs = torch.randn(3, 2, 24)
    network = deploy(compress(layer), inputs)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, wanted = network(inputs.bfloat16()), network(inputs.bfloat16().float())
    for own, other in zip(found, wanted, strict=True):
        assert torch.as_tensor(own).equal(torch.as_tensor(other))
