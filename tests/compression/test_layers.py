import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from compression.errors import CompressionError, UnsupportedTypeError
from compression.graph import fold_batch_norm
from compression.layers import check_model, compressible_layers, copy_model
from tests.support.nets import images, mlp, residual

# what: (atol, reason)
TOLERANCES = {"folded": (1e-5, "one multiplication more in float32 on outputs of size 1")}


def test_folding_keeps_eval_outputs_and_the_input_model() -> None:
    model = residual().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    folded = fold_batch_norm(model)
    assert model.training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with torch.no_grad():
        wanted, found = model.eval()(images()), folded(images())
    assert torch.allclose(wanted, found, atol=TOLERANCES["folded"][0], rtol=0)
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]


def test_a_norm_behind_a_shared_layer_stays() -> None:
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    norm.running_mean.fill_(0.5)  # type: ignore[union-attr]
    model = nn.Sequential(conv, norm, conv).eval()
    folded = fold_batch_norm(model)
    assert [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        assert torch.equal(model(images()), folded(images()))


def test_a_transposed_convolution_folds_on_its_own_axis() -> None:
    norm = nn.BatchNorm2d(5)
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), norm).eval()
    with torch.no_grad():
        assert torch.allclose(model(images()), fold_batch_norm(model)(images()), atol=1e-5)


def test_a_branch_on_the_data_is_refused_by_name() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedTypeError, match="Branching cannot be traced"):
        fold_batch_norm(Branching())


def broken(kind: str) -> nn.Module:
    model = mlp()
    with torch.no_grad():
        match kind:
            case "nan":
                model[1].weight[0, :3] = float("nan")  # type: ignore[operator,index,union-attr]
            case "meta":
                model[1].to("meta")  # type: ignore[operator]
            case "sparse":
                sparse = model[1].weight.detach().to_sparse()  # type: ignore[operator,index,union-attr]
                model[1].weight = nn.Parameter(sparse)  # type: ignore[operator,index]
    return model


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "1.weight: .* 3 of 3072"),
        ("meta", "1.weight: .* meta"),
        ("sparse", "1.weight: .* sp"),
    ],
)
def test_a_tensor_without_plain_finite_numbers_is_named(kind: str, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        check_model(broken(kind))


def test_a_mask_of_torchs_pruning_left_in_place_is_refused() -> None:
    model = residual()
    prune.l1_unstructured(model.conv1, "weight", amount=0.5)
    with pytest.raises(UnsupportedTypeError, match=r"cannot be copied .*prune\.remove"):
        copy_model(model)


def test_layers_are_found_by_name_and_copies_are_independent() -> None:
    assert list(compressible_layers(residual())) == ["conv1", "conv2", "fc"]
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    copy = copy_model(model)
    assert copy.get_parameter("0.weight") is copy.get_parameter("1.weight")
    with torch.no_grad():
        copy.get_parameter("0.weight").zero_()
    assert model[0].weight.abs().sum() > 0
