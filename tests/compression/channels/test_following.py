"""Networks without channels give what they give with zeros in their place, or keep them and say why."""

import pytest
import torch
from torch import Tensor, fx, nn

from compression.channels import cut, follow, kept_reasons
from compression.errors import CompressionError, UnsupportedTypeError
from tests.support.channel_cases import FOLLOWED, KEPT
from tests.support.channel_nets import Auxiliary, ReadInTraining, between
from tests.support.compared import leaves
from tests.support.drawing import program_of_seed
from tests.support.drawn import QUIET, drawn
from tests.support.integer_nets import numbers
from tests.support.nets import images, residual
from tests.support.program import Program
from tests.support.removed import check_cut, random_gone, removed

pytestmark = QUIET


@drawn(channels=True)
def test_drawn_networks_without_channels_are_those_with_zeros(program: Program) -> None:
    removed(program)


@drawn(0.5)
def test_usual_networks_without_channels_are_those_with_zeros(program: Program) -> None:
    removed(program)


def test_most_drawn_networks_lose_channels() -> None:
    shares = [removed(program_of_seed(seed, channels=True)) for seed in range(8)]
    assert sum(share < 1 for share in shares) >= 4


@pytest.mark.parametrize("name", FOLLOWED)
def test_channels_go(name: str) -> None:
    torch.manual_seed(0)
    model, x = FOLLOWED[name]()
    model, x = model.eval().double(), x.double() if x.is_floating_point() else x
    other = torch.randn_like(x) if x.is_floating_point() else x.flip(0)
    assert check_cut(model, (x,), (other,)) < 0.9


@pytest.mark.parametrize("name", KEPT)
def test_channels_stay_that_cannot_be_followed(name: str) -> None:
    torch.manual_seed(0)
    (model, x), reason = KEPT[name][0](), KEPT[name][1]
    check_cut(model.eval().double(), (x.double(),), (torch.randn_like(x).double(),))
    reasons = kept_reasons(follow(model, (x.double(),)))
    assert any(reason in text for text in reasons.values()), reasons


def test_what_training_alone_reaches_follows() -> None:
    model, x = Auxiliary().eval(), numbers(2, 3, 6, 6)
    channels = follow(model, (x,))
    smaller = cut(model, channels, random_gone(channels, 0)[0])
    a, b, c = smaller.a.out_channels, smaller.b.out_channels, smaller.c.out_channels
    assert a == b < 8, "the head reads both"
    assert c < 8
    assert [out.shape[1] for out in smaller.train()(x)] == [4, 4, 2]


def test_what_training_reads_whole_stays() -> None:
    reasons = kept_reasons(follow(ReadInTraining(), (numbers(2, 3, 6, 6),)))
    assert "the forward reads scale whole" in reasons["a.weight"]


class Untraceable(Auxiliary):
    """Asks for its data in training."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if self.training and float(y.mean()) > 0:
            y = self.c(y)
        return self.head(self.b(y))


def test_training_that_cannot_be_traced_is_refused_by_the_module_that_it_reaches() -> None:
    with pytest.raises(
        UnsupportedTypeError, match=r"^c\.weight is of a module .* delete the module"
    ):
        follow(Untraceable(), (numbers(2, 3, 6, 6),))


def test_an_example_too_small_for_training_is_refused() -> None:
    model = Auxiliary()
    model.extra = nn.Conv2d(8, 2, 7)
    with pytest.raises(CompressionError, match=r"the example in training; .* extra: "):
        follow(model, (numbers(2, 3, 6, 6),))


def test_an_example_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CompressionError, match=r"cannot take the example: conv1: "):
        follow(residual(), (numbers(2, 4, 8, 8),))


def test_a_single_layer_has_no_channels_to_go() -> None:
    assert not kept_reasons(follow(nn.Linear(3, 4), (numbers(2, 3),)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_a_tensor_is_stays(dtype: torch.dtype) -> None:
    model = residual().to(dtype).to(memory_format=torch.channels_last).train()
    model.conv2.weight.requires_grad_(False)
    channels = follow(model, (images(2).to(dtype),))
    smaller = cut(model, channels, random_gone(channels, 1)[0])
    assert smaller.training
    assert smaller.conv1.weight.shape[0] < 8
    assert not smaller.conv2.weight.requires_grad
    assert smaller.conv1.weight.requires_grad
    assert smaller.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert {t.dtype for t in smaller.parameters()} == {dtype}
    assert leaves(smaller(images(2).to(dtype)))[0].shape == (2, 4)


@fx.wrap
def _rolled(x: Tensor, shift: list[int]) -> Tensor:
    shift[0] = min(shift[0], x.shape[2] - 1)  # as torchvision's attention in windows of clips
    return x.roll(tuple(shift), (2, 3))


class Rolled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(_rolled(x, [1, 1]))
        return x.mean((2, 3))


def test_a_function_may_change_the_lists_that_it_is_given() -> None:
    net = Rolled(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 5, 3)).eval()
    channels = follow(net, (images(2),))
    assert "rolled is not known" in kept_reasons(channels)["0.weight"]


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 8), nn.Linear(2, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.head(self.a(x) + self.b(y))  # type: ignore[no-any-return]

    example = numbers(2, 3).double(), numbers(2, 2).double()
    assert check_cut(Two().eval().double(), example, example) < 0.7


def test_reasons_come_in_the_order_of_the_layers() -> None:
    model, x = between(nn.Conv2d(8, 8, 1), nn.Softmax(1))
    assert list(kept_reasons(follow(model, (x,)))) == ["1.weight", "3.weight"]
