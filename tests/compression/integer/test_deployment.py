"""What deploy returns has predicted the example as the reference does, or is not returned."""

import copy
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.baseline.networks import drawn
from compression.errors import CompressionError, UnsupportedTypeError
from compression.integer import EXECUTORS, IntegerModel, deploy, device_of, lacking
from compression.integer.onnx.engines import CompiledModel
from compression.integer.verification import IMAGES, Verification
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.executor_rows import prefer, put
from tests.support.nets import images, residual


@pytest.fixture(scope="module")
def model() -> StaticQuantizedModel:
    return quantize_static(residual(), images())


class Wrong(nn.Module):
    """An executor whose last class of some images is off."""

    def __init__(self, model: nn.Module, by: float, rows: slice = slice(None)) -> None:
        super().__init__()
        self.model, self.by, self.rows = model, by, rows

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs).clone()
        outputs[self.rows, -1] += self.by
        return outputs


class Fails(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        raise RuntimeError(f"no such kernel\nat line {len(inputs)}")


def use(monkeypatch: Any, **executors: Any) -> None:
    """Lower to these instead, all of them on this machine; their codes cannot be looked at."""
    for name, lower in executors.items():
        put(monkeypatch, name, lower=lower, keep=None)


def deployed(model: nn.Module, **options: Any) -> tuple[nn.Module, list[str]]:
    """Return what deploy returns, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = deploy(model, images(), **options)
    assert {w.category for w in caught} <= {RuntimeWarning}
    assert all(w.filename == __file__ for w in caught), "the line of the user's call"
    return found, [str(w.message) for w in caught]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda m, _: Wrong(m, 1e-6), "disagrees with the reference executor at its output (error"),
        (lambda m, _: Wrong(m, torch.nan), "at its output (error of the outputs inf, at most 0)"),
        (lambda m, _: Wrong(m, 1e-6, slice(-1, None)), "disagrees with the reference executor"),
        (lambda *_: Fails(), "fails at its output (no such kernel)"),
        (lambda *_: nn.Flatten(), "returns the shape (32, 192), expected (32, 4)"),
        (lambda *_: [].pop(), "fails (pop from empty list)"),
    ],
)  # fmt: skip
def test_an_executor_that_disagrees_is_left_out_with_one_warning(
    monkeypatch: Any, model: StaticQuantizedModel, wrong: Any, said: str
) -> None:
    right = lambda m, _: Wrong(m, 0.0)  # noqa: E731
    use(monkeypatch, native=wrong, onednn=right)
    for executor in (None, "native"):
        found, messages = deployed(model, executor=executor)
        assert isinstance(found, Wrong)
        assert found.by == 0
        (message,) = messages
        assert message.startswith("executor native ")
        assert said in message
        assert message.endswith(": the onednn executor runs instead")
    use(monkeypatch, onednn=wrong)
    if "disagrees" not in said:  # an error of 1e-6 is within onednn's ties
        found, (message,) = deployed(model)
        assert found is model
        assert message.count("executor native ") == message.count("executor onednn ") == 1
        assert message.endswith(": the reference executor runs instead")


def test_unverified_the_first_executor_is_returned(
    monkeypatch: Any, model: StaticQuantizedModel
) -> None:
    use(monkeypatch, native=lambda *_: Fails())
    found, messages = deployed(model, verify=False)
    assert isinstance(found, Fails)
    assert messages == []


@pytest.mark.parametrize("executor", ["native", "onednn"])
@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_the_layer_that_disagrees_is_named(
    monkeypatch: Any, model: StaticQuantizedModel, executor: str, layer: str
) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)
    prefer(monkeypatch, executor)
    other, row = copy.deepcopy(model), EXECUTORS[executor]
    other.network.get_submodule(layer).bias += 1_000
    ways = {"lower": row.lower, "keep": row.keep}
    wrong = {k: lambda _, x, way=way: way(other, x) for k, way in ways.items() if way is not None}
    put(monkeypatch, executor, **wrong)
    found, (message,) = deployed(model, executor=executor)
    assert found is model
    assert f"disagrees with the reference executor at {layer}, of whose codes " in message


def test_a_refusal_is_no_disagreement(monkeypatch: Any, model: StaticQuantizedModel) -> None:
    def refuse(what: str, *_: Any) -> nn.Module:
        raise UnsupportedTypeError(f"no kernel for {what}")

    use(monkeypatch, native=partial(refuse, "conv1"), onednn=partial(refuse, "conv2"))
    found, (message,) = deployed(model)
    assert found is model
    assert message.startswith(
        "no integer kernels here run the network (no kernel for conv1; no kernel for conv2): "
    )
    assert "slower than in float32; export_onnx" in message
    with pytest.raises(UnsupportedTypeError, match="no kernel for conv1"):
        deploy(model, images(), executor="native")


def test_a_wrong_example_is_named_whatever_the_executor(model: StaticQuantizedModel) -> None:
    for verify in (True, False):
        with pytest.raises(CompressionError, match=r"cannot take the example \(., 5, 8, 8\)"):
            deploy(model, torch.randn(4, 5, 8, 8), verify=verify)
        with pytest.raises(CompressionError, match=r"at least one image, found \(0, 3, 8, 8\)"):
            deploy(model, images()[:0], verify=verify)


def test_an_example_that_tells_nothing_is_replaced(model: StaticQuantizedModel) -> None:
    for example in (torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), torch.nan)):
        used = Verification(model, example).example
        assert used.shape == example.shape
        assert used.isfinite().all()
        assert used.unique().numel() > 100


def test_the_first_and_the_last_images_are_compared(model: StaticQuantizedModel) -> None:
    found = Verification(model, images())
    assert found.rows == [*range(IMAGES // 2), *range(32 - IMAGES // 2, 32)]
    ((_, wanted),) = found.wanted
    assert torch.equal(wanted, model(images())[found.rows])
    assert Verification(model, images()[:3]).rows == [0, 1, 2]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_every_executor_has_a_tolerance_and_its_reason(executor: str) -> None:
    bound, reason = EXECUTORS[executor].tolerance
    assert 0 <= bound <= 0.1
    assert len(reason.split()) > 3


def test_what_cannot_be_lowered_stays_with_the_reference() -> None:
    """A batch that the network fixes: no executor of others takes it."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(144, 2)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.b(self.a(x).reshape(1, 144))
            return outputs

    fixed = quantize_static(Fixed().eval(), images()[:1])
    with pytest.warns(RuntimeWarning, match="no integer kernels here run the network") as caught:
        assert deploy(fixed, images()[:1]) is fixed
    assert str(caught[0].message).count("the batch is fixed at reshape") == 1


@pytest.mark.parametrize("example", [(images(),), [images()], None, images().numpy()])
def test_an_example_is_a_tensor(model: StaticQuantizedModel, example: Any) -> None:
    for options in ({}, {"executor": "native"}, {"verify": False}):
        with pytest.raises(UnsupportedTypeError, match=r"must be one tensor of inputs \(N, ...\)"):
            deploy(model, example, **options)


@pytest.mark.parametrize("executor", ["onnxruntime", "openvino"])
def test_engines_take_any_batch_and_refuse_other_images(
    model: StaticQuantizedModel, executor: str
) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)
    engine = deploy(model, images(4), executor=executor)
    assert isinstance(engine, CompiledModel)
    first, second = images(2), images(2, seed=1)
    with torch.no_grad():
        kept = engine(first)
        before = kept.clone()
        engine(second)
        assert torch.equal(kept, before), "another prediction does not write it"
        assert engine(first[:0]).shape == (0, 4)
        for like in (first.double(), first.transpose(2, 3).contiguous().transpose(2, 3)):
            assert torch.equal(engine(like), kept)
    assert torch.equal(engine(first.clone().requires_grad_()), kept)
    for wrong in (torch.randn(2, 3, 9, 9), first[0], torch.tensor(1.0), first.to("meta")):
        with pytest.raises(
            CompressionError, match=rf"executor {executor} was made for inputs \(N, 3"
        ):
            engine(wrong)


def test_an_engines_error_is_ours() -> None:
    def fails(_: torch.Size) -> Any:
        raise RuntimeError("Exception from src/core.cpp:117:\nno such operator")

    with pytest.raises(
        CompressionError, match=r"engine X cannot predict inputs \(2, 3\): no such op"
    ):
        CompiledModel(fails, engine="engine X")(torch.zeros(2, 3))


def test_an_engine_predicts_for_one_thread_at_a_time() -> None:
    from concurrent.futures import ThreadPoolExecutor

    running: list[int] = []

    def compile_for(_: torch.Size) -> Any:
        def predict(inputs: Tensor) -> Tensor:
            running.append(1)
            alone = len(running) == 1
            torch.randn(200, 200) @ torch.randn(200, 200)
            running.pop()
            return torch.full((len(inputs),), float(alone))

        return predict

    engine = CompiledModel(compile_for)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(engine, [torch.zeros(1, 2)] * 200))
    assert all(bool(alone) for alone in found)


@pytest.mark.skipif(bool(lacking("onednn")), reason=str(lacking("onednn")))
def test_verification_runs_when_deployed_and_never_again(
    monkeypatch: Any, model: StaticQuantizedModel
) -> None:
    deployed = deploy(model, images(), executor="onednn")
    assert isinstance(deployed, IntegerModel)
    monkeypatch.setattr(StaticQuantizedModel, "forward", lambda *_: 1 / 0)
    deployed(images())


@pytest.mark.slow
@pytest.mark.parametrize("executor", [e for e in EXECUTORS if device_of(e) == "cpu"])
@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "mobilenet_v2", "densenet121", "vgg11_bn"]
)
def test_no_false_alarm(name: str, executor: str) -> None:
    """A warning is an error here: weights drawn at random, ranges of another image."""
    if reason := lacking(executor):
        pytest.skip(reason)
    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    reference = quantize_static(drawn(name), x[:2])
    for example in (x[2:], x[:1], torch.zeros(2, 3, 64, 64)):
        assert deploy(reference, example, executor=executor) is not reference
