"""A new executor is one row: deploy, its verification and their messages know it by nothing else."""

import copy
import warnings
from typing import Any

import pytest
from torch import Tensor, fx, nn

from compression.errors import CompressionError
from compression.integer import EXECUTORS, Executor, deploy, device_of, lacking, preferred
from compression.integer.agreement import CodesOf, codes_by_name
from compression.integer.codes import unsigned
from compression.modes import ExecutorModel
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.executor_rows import prefer
from tests.support.nets import images, residual

NAME = "made-up"


class MadeUp(ExecutorModel):
    """Runs a copy of the network, in which the bias of the layer `wrong` is another."""

    def __init__(self, model: StaticQuantizedModel, wrong: str | None = None) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        if wrong:
            self.model.network.get_submodule(wrong).bias += 1_000

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(inputs)
        return outputs

    def codes_of(self, inputs: Tensor) -> CodesOf:
        codes: dict[str, Tensor] = {}

        class Recorded(fx.Interpreter):
            def run_node(self, n: fx.Node) -> Any:
                value = super().run_node(n)
                if isinstance(value, Tensor) and not value.is_floating_point():
                    codes[n.name] = unsigned(value)
                return value

        Recorded(self.model.network).run(inputs)
        return codes_by_name(codes)


@pytest.fixture(scope="module")
def model() -> StaticQuantizedModel:
    return quantize_static(residual(), images())


def add(monkeypatch: pytest.MonkeyPatch, lower: Any = lambda m, _: MadeUp(m), **more: Any) -> None:
    row = Executor(
        name=NAME, about="a copy", device="cpu", lower=lower, tolerance=(0.0, "it copies"), **more
    )
    monkeypatch.setitem(EXECUTORS, NAME, row)


def deployed(model: nn.Module, executor: str | None = NAME) -> tuple[nn.Module, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = deploy(model, images(), executor=executor)
    return found, [str(w.message) for w in caught]


def test_it_is_deployed_by_its_name_and_unasked(
    monkeypatch: pytest.MonkeyPatch, model: StaticQuantizedModel
) -> None:
    add(monkeypatch)
    found, messages = deployed(model)
    assert isinstance(found, MadeUp)
    assert messages == []
    assert device_of(NAME) == "cpu"
    assert NAME not in preferred("cpu")
    prefer(monkeypatch, NAME)
    assert preferred("cpu") == (NAME,)
    found, messages = deployed(model, executor=None)
    assert isinstance(found, MadeUp)
    assert messages == []


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_its_layer_that_disagrees_is_named(
    monkeypatch: pytest.MonkeyPatch, model: StaticQuantizedModel, layer: str
) -> None:
    add(monkeypatch, lambda m, _: MadeUp(m, wrong=layer))
    found, (message,) = deployed(model)
    assert not isinstance(found, MadeUp)
    assert message.startswith(f"executor {NAME} disagrees with the reference executor at {layer}, ")


def test_its_failures_are_named(
    monkeypatch: pytest.MonkeyPatch, model: StaticQuantizedModel
) -> None:
    add(monkeypatch, lambda *_: [].pop())
    _, (message,) = deployed(model)
    assert message.startswith(f"executor {NAME} fails (pop from empty list): the ")
    add(monkeypatch, lambda *_: nn.Linear(5, 4))
    _, (message,) = deployed(model)
    assert message.startswith(f"executor {NAME} fails at its output (mat1 and mat2 shapes")


def test_what_it_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, model: StaticQuantizedModel
) -> None:
    assert NAME not in EXECUTORS
    with pytest.raises(CompressionError, match=r"must be one of .*triton, found 'made-up'"):
        deployed(model)
    add(monkeypatch, packages=("no_such_package",), missing=lambda: "a card of tin")
    needs = f"executor {NAME} needs no_such_package: pip install no_such_package"
    assert lacking(NAME) == needs
    with pytest.raises(CompressionError, match=needs):
        deployed(model)
    add(monkeypatch, missing=lambda: "needs a card of tin")
    assert lacking(NAME) == "needs a card of tin"
    prefer(monkeypatch, NAME)
    found, (message,) = deployed(model, executor=None)
    assert found is model
    assert "run the network (needs a card of tin)" in message
