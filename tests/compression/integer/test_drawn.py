"""Drawn networks: every executor gives what the reference executor gives."""

import pytest

from compression.integer import EXECUTORS, lacking
from tests.support import executed
from tests.support.drawn import QUIET, drawn, share_right
from tests.support.interpreter import lacking_interpreter
from tests.support.program import Program

pytestmark = QUIET
LEAST_NATIVE = 0.3
"""Of drawn networks of images: grouped convolutions and windows of even size are among them."""

WITH_THEIR_OWN = ("native", "onednn", "onnxruntime", "triton")
"""Executors that a test here looks at more closely."""


def needs(executor: str) -> pytest.MarkDecorator:
    reason = lacking(executor)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


@needs("native")
@drawn(image=True)
def test_native_gives_the_references_bits(program: Program) -> None:
    executed.native(program)


@needs("native")
@drawn()
def test_native_gives_them_for_any_network_that_it_takes(program: Program) -> None:
    executed.native(program)


@needs("native")
@drawn(0.5, image=True, outputs=True)
def test_native_gives_them_for_networks_of_several_outputs(program: Program) -> None:
    executed.native(program)


@needs("onednn")
@drawn(0.5, image=True, outputs=True)
def test_onednn_gives_codes_but_for_ties_for_several_outputs(program: Program) -> None:
    executed.onednn(program)


@needs("onnxruntime")
@drawn(0.5, image=True, outputs=True)
def test_the_file_gives_several_outputs_in_onnx_runtime(program: Program) -> None:
    executed.onnx_runtime(program)


@needs("native")
def test_native_takes_most_networks_for_images() -> None:
    assert share_right(executed.native, range(40), image=True) >= LEAST_NATIVE


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@drawn(0.03, image=True)
def test_tritons_interpreter_gives_the_references_bits(program: Program) -> None:
    executed.triton(program)


@pytest.mark.skipif(bool(lacking_interpreter()), reason=lacking_interpreter())
@drawn(0.03)
def test_tritons_interpreter_gives_them_for_any_network_that_it_takes(program: Program) -> None:
    executed.triton(program)


@needs("onednn")
@drawn()
def test_onednn_gives_the_references_codes_but_for_ties(program: Program) -> None:
    executed.onednn(program)


@needs("onnxruntime")
@drawn()
def test_the_file_gives_the_references_outputs_in_onnx_runtime(program: Program) -> None:
    executed.onnx_runtime(program)


@pytest.mark.parametrize("executor", [e for e in EXECUTORS if e not in WITH_THEIR_OWN])
def test_any_other_executor_gives_the_references_outputs(executor: str) -> None:
    if reason := lacking(executor):
        pytest.skip(reason)

    @drawn(0.05, image=True)
    def outputs_are_the_references(program: Program) -> None:
        executed.named(program, executor)

    outputs_are_the_references()


@drawn()
def test_what_deploy_chooses_gives_the_references_outputs(program: Program) -> None:
    executed.deployed(program)
