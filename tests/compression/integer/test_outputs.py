"""Networks of several outputs on every executor: in the float network's structure, each right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.integer import (
    EXECUTORS,
    code_differences,
    deploy,
    device_of,
    export_onnx,
    lacking,
    lower_native,
    lower_triton,
)
from compression.integer.executors import Executor
from compression.integer.verification import Verification
from compression.nested import map_tensors, structure_of, tensors_in
from compression.quantization import StaticQuantizedModel, quantize_static
from tests.support.bounds import EXECUTORS as ROUNDING
from tests.support.compared import assert_equal, assert_within, bounds, poisoned_memory
from tests.support.interpreter import lacking_interpreter
from tests.support.structured_nets import STRUCTURES, made

CPU = [name for name in EXECUTORS if device_of(name) == "cpu"]


def needs(executor: str) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)


def small(name: str) -> tuple[nn.Module, StaticQuantizedModel, Tensor]:
    net, x = made(name)
    return net, quantize_static(net, x), x


@pytest.mark.parametrize("executor", CPU)
@pytest.mark.parametrize("name", STRUCTURES)
@torch.no_grad()
def test_every_executor_gives_the_structure_and_the_outputs(name: str, executor: str) -> None:
    needs(executor)
    net, reference, x = small(name)
    with poisoned_memory():
        deployed = deploy(reference, x[:2], executor=executor)
        for count in (5, 1, 0):  # chunks, one image, none
            found, wanted = deployed(x[:count]), reference(x[:count])
            assert structure_of(found) == structure_of(wanted)
            if EXECUTORS[executor].tolerance[0] == 0:
                assert_equal([*tensors_in(found)], [*tensors_in(wanted)], name)
                continue
            spread = [bound[:count] for _, bound in bounds(net, (x,), ROUNDING)]
            right = zip((w.double() for w in tensors_in(wanted)), spread, strict=True)
            assert_within([*tensors_in(found)], list(right), name)


@pytest.mark.parametrize("name", ["nested dictionaries", "flattened, sliced and moved"])
def test_outputs_do_not_share_memory_with_the_next_prediction(name: str) -> None:
    needs("native")
    _, reference, x = small(name)
    deployed = lower_native(reference, x[:2])
    found = deployed(x)
    before = map_tensors(found, Tensor.clone, "outputs")
    deployed(x + 1)
    assert_equal([*tensors_in(found)], [*tensors_in(before)], name)


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@pytest.mark.parametrize("name", STRUCTURES)
@torch.no_grad()
def test_tritons_interpreter_gives_the_references_bits(name: str) -> None:
    _, reference, x = small(name)
    with poisoned_memory():
        lowered = lower_triton(reference, x[:2])
        found, wanted = lowered(x[:3]), reference(x[:3])
        assert structure_of(found) == structure_of(wanted)
        assert_equal([*tensors_in(found)], [*tensors_in(wanted)], name)


@pytest.mark.parametrize("name", STRUCTURES)
def test_no_code_differs(name: str) -> None:
    _, reference, x = small(name)
    for executor in ("native", "onednn"):
        if lacking(executor) is None:
            row = EXECUTORS[executor]
            lowered: Any = (row.keep or row.lower)(reference, x)
            differences = code_differences(reference, lowered, x)
            assert differences
            assert all(most <= (executor == "onednn") for most, _ in differences.values())


FILES = {
    "tuple": ["0", "1"],
    "nested dictionaries": ["out", "aux.0", "aux.1.x"],
    "named tuple": ["first", "second.first"],
    "dataclass": ["0.a.logits", "0.a.boxes"],
    "one tensor in a dictionary": ["out"],
    "names of the file": ["input_", "Conv_4_", "input__"],
}


@pytest.mark.parametrize("name", FILES)
def test_the_files_outputs_have_their_paths_as_names(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    _, reference, x = small(name)
    export_onnx(reference, tmp_path / "net.onnx", x)
    found = onnx.load(tmp_path / "net.onnx").graph.output
    assert [value.name for value in found] == FILES[name]
    shapes = [[d.dim_value for d in value.type.tensor_type.shape.dim][1:] for value in found]
    assert shapes == [list(t.shape[1:]) for t in tensors_in(reference(x))]


class Wrong(nn.Module):
    """Predicts as `reference` does, but for what `spoil` makes of it."""

    def __init__(self, reference: nn.Module, spoil: Any) -> None:
        super().__init__()
        self.reference, self.spoil = reference, spoil

    def forward(self, x: Tensor) -> Any:
        return self.spoil(self.reference(x))


SPOILT = {
    "an output": (lambda y: {**y, "aux": [y["aux"][0] + 1, y["aux"][1]]}, "its output at 'aux.0'"),
    "a shape": (lambda y: {**y, "out": y["out"][..., 1:]}, "returns the shape .* at 'out'"),
    "the structure": (lambda y: (y["out"], *y["aux"]), r"another structure \(tuple\)"),
    "nothing": (lambda y: y, None),
}


@pytest.mark.parametrize("name", SPOILT)
def test_verification_names_the_output_that_differs(name: str) -> None:
    import re

    spoil, said = SPOILT[name]
    _, reference, x = small("nested dictionaries")
    row = Executor(
        name="own", about="", device="cpu", lower=lambda m, _: m, tolerance=(0.1, "a test's")
    )
    found = Verification(reference, x).disagreement(Wrong(reference, spoil), row)
    assert found is said if said is None else re.search(said, str(found))
