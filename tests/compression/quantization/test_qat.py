import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.affine import QParams, choose_qparams, dequantize, quantize
from compression.graph import fold_batch_norm
from compression.quantization import StaticQuantizedModel, quantize_aware, quantize_static
from compression.quantization.build import build_network
from compression.quantization.calibration import observe, ranges
from compression.quantization.graph import plan_network
from compression.quantization.qat import _rehearsal, fake_quantize
from compression.training import Recipe, fit, predict
from tests.support.nets import RECIPE, images, residual, split

# what: (bound, reason)
TOLERANCES = {
    "rehearsal": (5e-3, "the deployed bias is rounded, which moves a tie here and there"),
}


def test_fake_quantization_is_quantization_forward_and_straight_through_backward() -> None:
    x = torch.tensor([-9.0, -1.0, 0.3, 0.9, 9.0], requires_grad=True)
    qparams = choose_qparams(torch.tensor([-1.0, 1.0]), num_bits=4)
    y = fake_quantize(x, qparams)
    assert torch.equal(y, dequantize(quantize(x, qparams), qparams))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


def test_affine_codes_clip_at_their_own_ends() -> None:
    qparams = QParams(torch.tensor(0.5), torch.tensor(-128, dtype=torch.int32), symmetric=False)
    x = torch.tensor([-1.0, 3.1, 200.0], requires_grad=True)
    y = fake_quantize(x, qparams)
    y.sum().backward()
    assert y.tolist() == [0, 3, 127.5]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 0]


def test_what_is_rehearsed_is_what_is_deployed() -> None:
    model = residual()
    folded = fold_batch_norm(model)
    plan = plan_network(folded)
    qparams = plan.qparams(ranges(observe(folded, [images()], keep=False), "min-max"))
    quantized = StaticQuantizedModel(build_network(plan, qparams))
    with torch.no_grad():
        rehearsed = _rehearsal(folded, qparams, plan).eval()(images())
        deployed = quantized(images())
    error = (rehearsed - deployed).abs().max() / deployed.abs().max()
    assert error <= TOLERANCES["rehearsal"][0]


def test_training_with_rounding_repairs_what_rounding_broke() -> None:
    model, data = residual(), split(256)
    fit(model, data, Recipe(epochs=15, batch_size=32, learning_rate=0.05))
    narrow = [images() * 0.3]  # ranges too small: what training has to live with
    before = {name: t.clone() for name, t in model.state_dict().items()}
    static = quantize_static(model, narrow)
    recipe = Recipe(epochs=10, batch_size=32, learning_rate=0.05)
    trained = quantize_aware(model, data, recipe, narrow)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    broken, repaired = (F.cross_entropy(predict(m, data), data.labels) for m in (static, trained))
    assert repaired < 0.8 * broken


def test_the_result_has_the_structure_of_static_int8() -> None:
    static: dict[str, Tensor] = quantize_static(residual(), images()).state_dict()
    trained = quantize_aware(residual(), split(), RECIPE, images()).state_dict()
    assert {n: t.shape for n, t in static.items()} == {n: t.shape for n, t in trained.items()}


def test_a_network_with_view_shared_and_transposed_layers_trains(capfd) -> None:
    class Views(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (nn.Conv2d(*sizes, 3, padding=1) for sizes in ((3, 8), (8, 8)))
            self.up, self.fc = nn.ConvTranspose2d(8, 4, 2, groups=2), nn.Linear(324, 5)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y = F.relu(self.a(x if mask is None else x * mask))
            y = F.avg_pool2d(self.b(self.b(y)) + y, 3, 1, 1) * 2.0 + 1
            return self.fc(self.up(y).view(x.shape[0], -1))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    batches = [(images(), torch.zeros(32))]
    trained = quantize_aware(Views(), split(33), RECIPE, batches)
    with torch.no_grad():
        assert trained(images()).shape == (32, 5)
    assert capfd.readouterr().err == "", "what is tried first and fails is not shown"
