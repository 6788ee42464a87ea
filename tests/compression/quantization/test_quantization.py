import operator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, choose_qparams
from compression.errors import CompressionError, UnsupportedTypeError
from compression.quantization import (
    cast,
    quantize_dynamic,
    quantize_static,
    quantize_weights,
    round_vectors,
)
from compression.quantization.modules import QuantizedJoin, QuantizedLayer
from compression.quantization.products import integer_matmul, padded_matmul
from tests.support.kinds import KINDS
from tests.support.nets import images, mlp, residual

# technique: (least signal to noise in dB, reason)
SQNR_DB = {
    "static": (25.0, "8 bits give about 40 dB a layer, min-max ranges and three layers cost some"),
    "dynamic": (35.0, "8 bits in the linear layers only"),
    "8 bits": (35.0, "weights only"),
    "4 bits": (12.0, "16 levels"),
    "depthwise": (40.0, "a channel of its own scale; per tensor the small ones round to 0"),
}


def sqnr_db(wanted: Tensor, found: Tensor) -> float:
    return float(20 * torch.log10(wanted.norm() / (wanted - found).norm()))


@pytest.mark.parametrize("kind", ["static", "dynamic", "8 bits", "4 bits"])
@pytest.mark.parametrize("training", [False, True])
def test_outputs_stay_close_and_the_input_is_untouched(kind: str, training: bool) -> None:
    model = residual().train(training)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    quantized = KINDS[kind](model).eval()
    assert model.training == training
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with torch.inference_mode():
        assert sqnr_db(model.eval()(images()), quantized(images())) > SQNR_DB[kind][0]


def test_weights_loaded_behind_a_prediction_are_those_of_the_next() -> None:
    model, other = (KINDS["4 bits"](residual(seed)) for seed in (0, 1))
    with torch.inference_mode():
        model(images())
        model.load_state_dict(other.state_dict())
        assert torch.equal(model(images()), other(images()))


def test_a_residual_sum_of_two_scales() -> None:
    a, b = (
        QParams(torch.tensor(s), torch.tensor(z), symmetric=False) for s, z in ((0.5, 3), (0.1, -7))
    )
    output = QParams(torch.tensor(0.25), torch.tensor(10), symmetric=False)
    join = QuantizedJoin([a, b], output, dim=None)
    x, y = torch.tensor([13], dtype=torch.int8), torch.tensor([43], dtype=torch.int8)
    # 0.5 (13 - 3) + 0.1 (43 + 7) = 10 -> 10 / 0.25 + 10
    assert join(x, y).tolist() == [50]


def test_a_channel_of_zeros_and_a_depthwise_convolution_keep_their_precision() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.ReLU6(), nn.Flatten())
    model.append(nn.Linear(4 * 64, 2))
    x = torch.randn(16, 4, 8, 8)
    with torch.no_grad():
        model[0].weight[0] = 0  # type: ignore[operator,index,union-attr]
        model[0].weight[1] *= 1e-4  # type: ignore[operator,index,union-attr]
        weights = quantize_weights(model)
        small = model[0].weight[1]  # type: ignore[index,union-attr]
        found = weights.get_submodule("0").weight[1]  # type: ignore[operator]
        assert sqnr_db(small, found) > SQNR_DB["depthwise"][0]
        assert torch.isfinite(quantize_static(model, x)(x)).all()


def test_a_transposed_convolution_is_quantized_by_its_output_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(500, 2))
    quantized = quantize_static(model, images())
    layer = next(m for m in quantized.modules() if isinstance(m, QuantizedLayer))
    assert layer.weight_scale.shape == (5,)
    with torch.no_grad():
        assert sqnr_db(model(images()), quantized(images())) > SQNR_DB["static"][0]


class Functional(nn.Module):
    """The same operators as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(operator.iadd(self.a(x), self.b(x)))
        y = F.max_pool2d(torch.cat([y, torch.relu(self.b(x))], dim=1), 2)
        y = F.dropout(F.avg_pool2d(y, 2), 0.5, self.training)
        y = y.mean([2, 3])
        return self.fc(y.view(y.size(0), -1))  # type: ignore[no-any-return]


def test_functional_forms_are_known() -> None:
    torch.manual_seed(0)
    model = Functional().eval()
    quantized = quantize_static(model, images())
    with torch.no_grad():
        assert sqnr_db(model(images()), quantized(images())) > SQNR_DB["static"][0]


def test_an_unknown_operator_and_an_empty_calibration_are_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GLU(1), nn.Conv2d(3, 3, 1))
    with pytest.raises(UnsupportedTypeError, match="GLU"):
        quantize_static(model, images())
    for empty in (images(0), [], [images(0)]):
        with pytest.raises(CompressionError, match="calibration set is empty"):
            quantize_static(residual(), empty)


def test_calibration_covers_every_batch() -> None:
    model, x = residual(), images(12)
    whole = quantize_static(model, x).state_dict()
    parts = quantize_static(model, [x[:5], x[5:]]).state_dict()
    first = quantize_static(model, x[:1]).state_dict()
    for name, tensor in whole.items():
        assert torch.allclose(tensor.double(), parts[name].double(), rtol=1e-5), name
    assert any(not torch.equal(tensor, first[name]) for name, tensor in whole.items())


def test_integer_products_are_exact() -> None:
    a = torch.full((3, 4096), -128, dtype=torch.int8)
    b = torch.full((4096, 5), 127, dtype=torch.int8)
    for product in (integer_matmul, padded_matmul):
        assert product(a, b).unique().tolist() == [-128 * 127 * 4096]


@pytest.mark.parametrize(("rows", "inner", "columns"), [(1, 3, 1), (16, 512, 10), (40, 8, 16)])
def test_a_padded_product_is_the_product(rows: int, inner: int, columns: int) -> None:
    a, b = (
        torch.randint(-128, 128, shape, dtype=torch.int8)
        for shape in ((rows, inner), (inner, columns))
    )
    assert torch.equal(padded_matmul(a, b).long(), a.long() @ b.long())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_multiplies_int8_in_any_shape() -> None:
    for rows, inner, columns in ((1, 3, 1), (1, 512, 10), (1024, 512, 10)):
        a, b = (
            torch.randint(-128, 128, s).to(torch.int8) for s in ((rows, inner), (inner, columns))
        )
        found = integer_matmul(a.cuda(), b.cuda())
        assert torch.equal(found.cpu().long(), a.long() @ b.long())


def test_dynamic_needs_a_layer_it_knows_and_leaves_convolutions_in_float() -> None:
    with pytest.raises(CompressionError, match=r"nn\.Linear, nn\.LSTM, nn\.GRU, nn\.RNN only"):
        quantize_dynamic(nn.Sequential(nn.Conv2d(3, 3, 1)))
    quantized = quantize_dynamic(residual())
    assert quantized.get_parameter("conv1.weight").dtype == torch.float32
    assert quantized.get_buffer("fc.codes").dtype == torch.int8


@pytest.mark.parametrize("bits", range(2, 9))
def test_codes_use_their_bits(bits: int) -> None:
    codes = quantize_weights(mlp(), num_bits=bits).get_buffer("1.codes")
    assert int(codes.abs().max()) == 2 ** (bits - 1) - 1


def test_half_precision_refuses_what_it_cannot_hold() -> None:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("1.weight")[0, 0] = 1e6
    with pytest.raises(CompressionError, match=r"1\.weight: 1e\+06 is beyond"):
        cast(model, torch.float16)
    assert torch.isfinite(cast(model, torch.bfloat16)(images())).all()
    with pytest.raises(CompressionError, match=r"float16 or torch\.bfloat16"):
        cast(model, torch.float64)


def test_a_bias_beyond_int32_gives_its_weights_a_coarser_scale() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.fill_(1e-6)
        layer.bias.fill_(1e9)
    inputs = choose_qparams(torch.tensor([1e-3]), symmetric=False)
    small = QuantizedLayer(layer, inputs, None, "fc")
    assert small.bias.abs().max() <= 2**30
    codes = torch.zeros(1, 2, dtype=torch.int8)
    assert small(codes).item() == pytest.approx(1e9, rel=1e-6)


def test_rounded_vectors_are_bfloat16_numbers_and_nothing_else_changes() -> None:
    model = residual()
    largest = torch.finfo(torch.float32).max  # to nearest it would be infinite
    with torch.no_grad():
        model.get_parameter("bn1.bias")[0] = largest
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounded = round_vectors(model).state_dict()
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor), name
        vector = tensor.ndim < 2 and tensor.is_floating_point()
        assert rounded[name].dtype == tensor.dtype
        assert torch.equal(rounded[name], tensor) or vector, name
        if vector:
            assert torch.equal(rounded[name].bfloat16().float(), rounded[name]), name
            # 8 significant bits: half of 2^-7; the largest float32 goes down by 2^-8 of itself
            assert ((rounded[name] - tensor).abs() <= tensor.abs() * 2.0**-8).all(), name
