"""torchvision's classification networks by name: the smallest of each family, there and back."""

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from compression.architectures import Architecture
from compression.clustering import share_weights
from compression.pruning import prune_l1_unstructured
from compression.quantization import cast, quantize_dynamic, quantize_weights
from compression.storage import load, save
from compression.storage.proof import check_loads
from compression.storage.rebuild import release
from tests.support.storage_nets import digest

# Name and the pixels of an image that it takes; those with a version or options of their own among
# them: mnasnet asks for the version of its state dict.
WHOLE = {
    "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "mobilenet_v3_small": 64,
    "resnet18": 64,
}
LARGE = ["alexnet", "vgg11", "inception_v3", "convnext_tiny", "swin_t", "swin_v2_t", "maxvit_t"]
LARGE += [
    "vit_b_32",
    "mobilenet_v2",
    "regnet_y_400mf",
    "efficientnet_b0",
    "densenet121",
    "googlenet",
]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = Architecture(name, 10)().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1)
    return model


def comes_back(model: nn.Module, path: Path, name: str) -> None:
    save(model, path, architecture=Architecture(name, 10))
    loaded = load(path)
    assert digest(loaded) == digest(model)
    images = torch.randn(1, 3, WHOLE[name], WHOLE[name])
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("name", WHOLE)
def test_the_smallest_of_a_family_comes_back(name: str, tmp_path: Path) -> None:
    comes_back(network(name), tmp_path / "model", name)


@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
@pytest.mark.parametrize("name", LARGE)
def test_a_large_one_loads_its_own_state_dict(name: str) -> None:
    """A file of it takes seconds; its values are of no account here, so they are not drawn."""

    def kept(tensor: Tensor, *_: object, **__: object) -> Tensor:
        return tensor

    with (
        mock.patch.multiple(Tensor, uniform_=kept, normal_=kept),
        mock.patch.object(nn.init, "trunc_normal_", kept),
    ):
        model = Architecture(name, 1000)()
    check_loads(release(model))


TECHNIQUES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pruned": lambda model: prune_l1_unstructured(model, amount=0.5),
    "shared": lambda model: share_weights(model, num_clusters=16),
    "weights": lambda model: quantize_weights(model, num_bits=4, group_size=32),
    "dynamic": quantize_dynamic,
    "float16": lambda model: cast(model, torch.float16),
    "bfloat16": lambda model: cast(model, torch.bfloat16),
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_compressed_one_comes_back(technique: str, tmp_path: Path) -> None:
    name = "shufflenet_v2_x0_5"
    comes_back(TECHNIQUES[technique](network(name)), tmp_path / "model", name)
