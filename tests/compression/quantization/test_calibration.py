import pytest
import torch
from torch import Tensor, fx, nn

from compression.errors import CompressionError
from compression.graph import fold_batch_norm
from compression.quantization import quantize_static
from compression.quantization.calibration import METHODS, Activation, observe, ranges
from compression.quantization.equalization import correct_bias, equalize
from tests.support.nets import images, mlp, residual

# what: (bound, reason)
TOLERANCES = {
    "equalized outputs": (1e-5, "one multiplication and one division more in float32"),
    "corrected mean": (0.1, "of the error before: padding and the sampled mean are left"),
}


def activation(values: Tensor) -> Activation:
    found = Activation()
    found.see(values.view(1, 1, -1), keep=True)
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_range_lies_within_what_was_seen(method: str) -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    low, high = METHODS[method](activation(values))
    assert values.min() <= low < 0 < high <= values.max()


@pytest.mark.parametrize("method", ["percentile", "entropy"])  # squared error minds an outlier
def test_one_outlier_costs_min_max_its_resolution_and_no_other(method: str) -> None:
    values = torch.randn(16_384, generator=torch.Generator().manual_seed(0))
    values[7] = 1000.0
    assert METHODS["min-max"](activation(values))[1] == 1000
    assert METHODS[method](activation(values))[1] < 500


def test_mse_is_never_worse_than_min_max() -> None:
    for seed in range(5):
        values = torch.randn(5000, generator=torch.Generator().manual_seed(seed)).pow(3)
        errors = []
        for method in ("min-max", "mse"):
            low, high = METHODS[method](activation(values))
            scale = (high - low) / 255
            codes = (torch.round(values / scale) - torch.round(low / scale)).clamp(0, 255)
            errors.append(((codes + torch.round(low / scale)) * scale - values).square().mean())
        assert errors[1] <= errors[0]


def test_zeros_have_a_range() -> None:
    for method in METHODS:
        low, high = METHODS[method](activation(torch.zeros(1000)))
        assert (float(low), float(high)) == (0, 0)


def test_an_unknown_method_lists_the_choices() -> None:
    with pytest.raises(CompressionError, match="min-max, percentile, mse, entropy, found 'max'"):
        ranges({}, "max")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"equalization": True}, {"bias_correction": True}])
def test_every_method_quantizes(method: str, options: dict[str, bool]) -> None:
    model = residual()
    quantized = quantize_static(model, images(), method=method, **options)
    with torch.no_grad():
        wanted, found = model(images()), quantized(images())
    assert (wanted - found).norm() < 0.1 * wanted.norm()


def chain(between: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 4, 3), nn.Flatten())
    with torch.no_grad():
        model[0].weight[0] *= 100  # type: ignore[operator,index,union-attr]
    return model.eval()


def test_equalization_keeps_the_outputs_and_evens_the_channels() -> None:
    model = chain(nn.ReLU())
    folded = fold_batch_norm(model)
    assert equalize(folded) == 1
    with torch.no_grad():
        wanted = model(images())
        error = (folded(images()) - wanted).abs().max() / wanted.abs().max()
    assert error < TOLERANCES["equalized outputs"][0]
    first = folded.get_parameter("0.weight").abs().amax(dim=(1, 2, 3))
    second = folded.get_parameter("2.weight").abs().amax(dim=(0, 2, 3))
    assert torch.allclose(first, second, rtol=1e-4)


@pytest.mark.parametrize("between", [nn.ReLU6(), nn.Sigmoid()], ids=["relu6", "sigmoid"])
def test_equalization_leaves_alone_what_does_not_scale(between: nn.Module) -> None:
    assert equalize(fold_batch_norm(chain(between))) == 0
    assert equalize(fold_batch_norm(mlp())) == 0


def test_bias_correction_takes_out_the_mean_error_of_rounding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1))
    x = torch.rand(64, 3, 8, 8) + 1  # inputs of one sign: a shift, not noise
    plain, corrected = (quantize_static(model, x, bias_correction=on) for on in (False, True))
    with torch.no_grad():
        wanted = model(x)
        before, after = (
            (q(x) - wanted).mean(dim=(0, 2, 3)).abs().mean() for q in (plain, corrected)
        )
    assert after < before


def test_correction_by_hand() -> None:
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 1)))
    with torch.no_grad():
        graph.get_parameter("0.weight").copy_(torch.tensor([[127.0, 0.4]]))  # 0.4 rounds to 0
        graph.get_parameter("0.bias").zero_()
    assert correct_bias(graph, {"input_1": torch.tensor([1.0, 10.0])}) == 1
    assert graph.get_parameter("0.bias").item() == pytest.approx(4.0)


def test_bfloat16_observes_nearly_the_same_ends() -> None:
    folded = fold_batch_norm(residual())
    whole, half = (
        observe(folded, [images()], keep=False, precision=p) for p in ("float32", "bfloat16")
    )
    for name, seen in whole.items():
        assert torch.allclose(seen.high, half[name].high, rtol=0.02, atol=0.02), name
