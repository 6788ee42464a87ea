"""What only windows of stride 2 read lies in planes: to the bit what the reference gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compression.integer import code_differences, lacking, lower_native
from compression.integer.native import library
from compression.quantization import quantize_static
from tests.support.integer_nets import numbers
from tests.support.tricky_nets import Net

pytestmark = pytest.mark.skipif(
    lacking("native") is not None or not library().use_amx(1),
    reason="needs a CPU with AMX's int8 products, which Linux lets this process use",
)


def filters(size: int, *, stride: int = 2, **options: int) -> nn.Conv2d:
    return nn.Conv2d(64, 24, size, stride, **options)


def net(forward: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return Net(lambda s, x: forward(s, torch.relu(s.first(x))), first=nn.Conv2d(3, 64, 1), **layers)


def of(layer: nn.Module) -> nn.Module:
    return net(lambda s, x: s.layer(x).flatten(1), layer=layer)


NETS = {
    "3x3": of(filters(3, padding=1)),
    "unpadded": of(filters(3)),
    "even": of(filters(2)),
    "5x5, padded by 1": of(filters(5, padding=1)),
    "far apart": of(filters(3, padding=2, dilation=2)),
    "in groups": of(nn.Conv2d(64, 64, 3, 2, 1, groups=2)),
    "shortcut": net(
        lambda s, x: (s.layer(x) + s.other(x)).flatten(1),
        layer=filters(3, padding=1), other=filters(1),
    ),
}  # fmt: skip
OTHERS = {
    "one column at a time": of(nn.Conv2d(64, 24, 3, (2, 1), 1)),
    "pixels alone": of(filters(1)),
    "filters of a channel": of(nn.Conv2d(64, 64, 3, 2, 1, groups=64)),
    "stride 1, too": net(
        lambda s, x: torch.cat([s.layer(x).flatten(1), s.other(x).flatten(1)], 1),
        layer=filters(3, padding=1), other=filters(3, stride=1),
    ),
    "wider border": net(
        lambda s, x: torch.cat([s.layer(x).flatten(1), s.other(x).flatten(1)], 1),
        layer=filters(3, padding=1), other=filters(5, padding=2),
    ),
    "read as rows": net(
        lambda s, x: torch.cat([s.layer(x).flatten(1), x.flatten(1)], 1), layer=filters(3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("sides", [(8, 8), (9, 12), (7, 31)], ids=str)
@pytest.mark.parametrize("name", [*NETS, *OTHERS])
def test_every_code_is_that_of_the_reference(name: str, sides: tuple[int, int]) -> None:
    model, x = (NETS | OTHERS)[name].eval(), numbers(5, 3, *sides)
    reference = quantize_static(model, x)
    integer = lower_native(reference, x, keep=True)
    in_planes = [v for v in integer._layout.values.values() if v.geometry.planes == (2, 2)]
    assert len(in_planes) == (name in NETS)
    with torch.inference_mode():
        assert torch.equal(integer(x), reference(x))
        assert max(code_differences(reference, integer, x).values()) == (0, 0.0)
        library().use_amx(0)
        on_vnni = integer(x)
        library().use_amx(1)
        assert torch.equal(on_vnni, reference(x))
