"""Networks by name: what they are, and what is refused."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from compression.architectures import Architecture
from compression.errors import CompressionError


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_resnet18_for_cifar_is_torchvisions_but_for_its_stem() -> None:
    model = Architecture("resnet18-cifar", 10)()
    whole, found = shapes(models.resnet18(num_classes=10)), shapes(model)
    assert found.pop("conv1.weight") == (64, 3, 3, 3)
    assert whole.pop("conv1.weight") == (64, 3, 7, 7)
    assert found == whole
    stem = model.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    assert (stem.stride, stem.padding) == ((1, 1), (1, 1))
    assert not list(model.get_submodule("maxpool").parameters())
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with torch.no_grad():
        before = model.get_submodule("maxpool")(stem(torch.zeros(1, 3, 32, 32)))
    assert before.shape == (1, 64, 32, 32)  # no pool makes it smaller


FIVE_LAYERS = {
    "0.weight": (32, 3, 3, 3),
    "4.weight": (64, 32, 3, 3),
    "8.weight": (128, 64, 3, 3),
    "14.weight": (600, 2048),
    "14.bias": (600,),
    "16.weight": (7, 600),
    "16.bias": (7,),
}


def test_the_student_of_five_layers() -> None:
    model = Architecture("five-layer-cnn", 7)()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert len(layers) == 5
    weights = {n: s for n, s in shapes(model).items() if n.split(".")[0] in layers}
    assert weights == FIVE_LAYERS
    assert 4 * count(model) <= 5.19 * 2**20
    for pixels in (32, 48):
        assert model.eval()(torch.zeros(2, 3, pixels, pixels)).shape == (2, 7)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_torchvisions_own(name: str) -> None:
    model = Architecture(name, 10)()
    assert shapes(model) == shapes(models.get_model(name, num_classes=10))


def test_nothing_is_said_of_how_weights_will_be_drawn_one_day() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Architecture("googlenet", 10)()


def test_a_factory_draws_anew() -> None:
    factory = Architecture("five-layer-cnn", 2)
    first, second = factory(), factory()
    assert shapes(first) == shapes(second)
    assert not torch.equal(first.get_parameter("0.weight"), second.get_parameter("0.weight"))


def test_architectures_are_values() -> None:
    assert Architecture("resnet18", 10) == Architecture("resnet18", 10)
    assert len({Architecture("resnet18", n) for n in (10, 10, 100)}) == 2


@pytest.mark.parametrize(
    ("name", "classes"), [("five-layer-cnn", 10), ("resnet18-cifar", 100), ("squeezenet1_1", 1000)]
)
def test_about_bytes_is_no_less_than_the_network(name: str, classes: int) -> None:
    """What a file may have allocated is bounded by it; no network's last layer is wider than 4096."""
    about = Architecture(name, classes).about_bytes()
    needed = 4 * count(Architecture(name, classes)())
    assert needed <= about <= needed + 4 * 4096 * (classes + 1000)


def test_every_name_tells_what_it_takes() -> None:
    for name in models.list_models(models):
        assert Architecture(name, 10).about_bytes() > 4 * 500_000


@pytest.mark.parametrize(
    "name", ["resnet17", "", "ResNet18 ", "fasterrcnn_resnet50_fpn", "os", None, 3]
)
def test_unknown_names_list_the_choices(name: Any) -> None:
    choices = r"choose resnet18-cifar, five-layer-cnn, or one of torchvision\.models\.list_models"
    with pytest.raises(CompressionError, match=f"unknown architecture {name!r}: {choices}"):
        Architecture(name, 10)


@pytest.mark.parametrize("classes", [0, -1, 100_001, 10**12, True, 10.0, "10", None])
def test_numbers_of_classes_that_are_none(classes: Any) -> None:
    with pytest.raises(CompressionError, match=r"num_classes must lie in 1\.\.100000, found"):
        Architecture("resnet18", classes)


def test_a_name_that_is_no_text() -> None:
    with pytest.raises(CompressionError, match="unknown architecture"):
        Architecture([], 10)  # type: ignore[arg-type]
