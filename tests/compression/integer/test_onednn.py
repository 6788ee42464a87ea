"""The oneDNN executor on operands and settings of every kind: within a code of the reference."""

import pytest
import torch
from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import code_differences, has_integer_kernels, lower_onednn
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.integer_nets import numbers
from tests.support.tricky_nets import NETS, Net, made

# what: (bound, reason)
TOLERANCES = {
    "code": (1, "a tie that float32 and the kernel's float32 round to either side"),
    "outputs": (0.02, "such a tie moves the codes of the layers after it"),
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding='same'"),  # torch's own
    pytest.mark.skipif(not has_integer_kernels("cpu"), reason="the CPU has neither VNNI nor AMX"),
]


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype == torch.float32
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", NETS)
def test_each_network_is_the_reference(name: str) -> None:
    model, x = made(name)
    reference = quantize_static(model, x)
    integer = lower_onednn(reference, x, fallback=True)
    with torch.inference_mode():
        wanted, before = reference(x), x.clone()
        assert error(integer(x), wanted) <= TOLERANCES["outputs"][0]
        assert torch.equal(x, before), "the input is not written"
        for part in (x[:1], x[:3]):
            assert error(integer(part), reference(part)) <= TOLERANCES["outputs"][0]
        assert integer(x[:0]).shape == (0, *wanted.shape[1:])
        double = integer(x.transpose(0, -1).contiguous().transpose(0, -1).double())
        assert torch.equal(double, integer(x)), "strides and types of the input do not matter"
    for layer, (largest, _) in code_differences(reference, integer, x).items():
        assert largest <= TOLERANCES["code"][0], layer


def test_pixels_as_bytes_are_pixels() -> None:
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    reference = quantize_static(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), x.float())
    integer = lower_onednn(reference, x.float())
    with torch.inference_mode():
        assert torch.equal(integer(x), integer(x.float()))


def static(how, x: Tensor, **layers: nn.Module) -> StaticQuantizedModel:
    torch.manual_seed(0)
    return quantize_static(Net(how, **layers).eval(), x)


def test_what_has_no_kernel_is_refused_by_name() -> None:
    x = numbers(4, 3, 8, 8)
    even = static(lambda s, x: s.even(x), x, even=nn.Conv2d(3, 4, 2, padding="same"))
    with pytest.raises(
        UnsupportedTypeError, match=r"no integer kernel for even \(QuantizedLayer\)"
    ):
        lower_onednn(even, x)
    real = static(lambda s, x: x + s.last(x), x, last=nn.Conv2d(3, 3, 1))
    with pytest.raises(
        UnsupportedTypeError, match=r"no integer kernel for last \(QuantizedLayer\)"
    ):
        lower_onednn(real, x)


def test_sums_beyond_int32_are_not_given_to_the_kernels() -> None:
    x = torch.rand(2, 70_000)
    wide = nn.Sequential(nn.Linear(70_000, 2)).eval()
    nn.init.ones_(wide[0].weight)
    reference = quantize_static(wide, x)
    assert lower_onednn(reference, x, fallback=True).stayed == ("0",)


def test_inputs_of_another_shape_or_place_are_refused() -> None:
    model, x = made("groups")
    integer = lower_onednn(quantize_static(model, x), x)
    for wrong in (x[:, :3], x[0], x[..., :5], torch.tensor(0.0), x.to("meta")):
        with pytest.raises(
            CompressionError, match=r"made for inputs \(N, 4, 9, 9\) on the CPU, fou"
        ):
            integer(wrong)


def test_a_batch_fixed_by_the_network_is_refused_by_name() -> None:
    x = numbers(4, 3, 8, 8)
    fixed = static(
        lambda s, x: s.b(s.a(x).view(1, -1)), x[:1], a=nn.Conv2d(3, 4, 3), b=nn.Linear(144, 2)
    )
    with pytest.raises(UnsupportedTypeError, match=r"the batch is fixed at view"):
        lower_onednn(fixed, x)
    with pytest.raises(
        CompressionError, match=r"at least one image, found the shape \(0, 3, 8, 8\)"
    ):
        lower_onednn(fixed, x[:0])


def test_an_example_of_another_kind_names_the_layer() -> None:
    model, x = made("groups")
    with pytest.raises(CompressionError, match=r"^0 cannot take what an image like the example's"):
        lower_onednn(quantize_static(model, x), x[:, :3])


def test_views_are_compared_too() -> None:
    model, x = made("view by shape")
    reference = quantize_static(model, x)
    differences = code_differences(reference, lower_onednn(reference, x), x)
    names = [n.name for n in reference.network.graph.nodes if n.target == "reshape"]
    assert [differences[name] for name in names] == [(0, 0.0)]


def test_codes_of_another_shape_are_reported() -> None:
    model, x = made("tokens")
    reference = quantize_static(model, x)
    integer = lower_onednn(reference, x)
    integer.network.add_submodule("0", nn.Flatten())  # in the place of its first layer
    assert code_differences(reference, integer, x)["_0"] == (255, 1.0)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda codes: codes.clamp(min=3), "computes on codes"),
        (lambda codes: codes.flip(0), "moves numbers from one image to another"),
        (lambda codes: codes.transpose(0, 1), "the batch is fixed"),
        (lambda codes: codes[:1], "the batch is fixed at"),
    ],
)
def test_what_is_no_move_of_an_images_numbers_is_refused(function, said: str) -> None:
    model, x = made("map as output")
    reference = quantize_static(model, x)
    graph = reference.network.graph
    quantize = next(n for n in graph.nodes if n.op == "call_module")
    with graph.inserting_after(quantize):
        between = graph.call_function(function, (quantize,))
    quantize.replace_all_uses_with(between, delete_user_cb=lambda user: user is not between)
    reference.network.recompile()
    with pytest.raises(UnsupportedTypeError, match=said):
        lower_onednn(reference, x)
