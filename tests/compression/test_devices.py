"""Techniques where model and images are on a GPU, pretended: nothing may mix devices."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.baseline import Baseline
from benchmarks.techniques import TECHNIQUES, Technique
from compression.accounting import count_macs, count_nonzeros, count_parameters
from compression.distillation import Decoupled, Dist, Hinton, Standardized
from compression.integer import TritonModel, lower_triton
from compression.integer.triton.config import DEFAULT
from compression.integer.triton.launch import Launch
from compression.nested import tensors_in
from compression.quantization import quantize_static, quantize_weights
from compression.training import Recipe, Split, correct_images
from compression.training.batches import Feed
from tests.support import shaped_nets, structured_nets, transformer_nets
from tests.support.kinds import KINDS
from tests.support.nets import images, mlp, residual
from tests.support.pretend_cuda import CUDA, WAITS, OnCuda, pretend_cuda
from tests.support.workloads import WITH_STUDENT, tiny_data

FITTING = (
    *("pruning.networks", "clustering.networks", "distillation.networks", "quantization.qat"),
    *("schedules.epochs", "schedules.gradual", "schedules.iterative", "schedules.learning"),
)


def step(
    model: Any,
    train: Split,
    recipe: Recipe,
    *_: Any,
    loss: Any = None,
    after_step: Any = None,
    **__: Any,
) -> None:
    """Stand in for `fit`: steps without their gradients, which need the real card."""
    batch = train.take(4)
    inputs = batch.inputs(slice(None))
    with torch.no_grad():
        logits = model(inputs)
        if loss is not None:
            assert isinstance(loss(logits, batch.labels, inputs), OnCuda)
        for _ in range(Feed().steps(len(train), recipe.batch_size) * recipe.epochs):
            if after_step is not None:
                after_step()


@pytest.mark.parametrize("technique", TECHNIQUES, ids=str)
def test_a_technique_stays_on_its_device(
    technique: Technique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.kept.cache_folder", lambda: tmp_path)
    for module in FITTING:
        monkeypatch.setattr(f"compression.{module}.fit", step)
    monkeypatch.setattr("compression.schedules.progress.feed_of", lambda *_: Feed())
    # A teacher in INT8 would launch kernels, which a pretended card has none of.
    monkeypatch.setattr("benchmarks.repairs.deploy", lambda model, _: model)
    with pretend_cuda():
        data = tiny_data().to(CUDA)
        baseline = Baseline(residual().to(CUDA), data, WITH_STUDENT, CUDA)
        with torch.no_grad():
            made = technique.how(baseline)
            outputs = made(data.test.inputs(slice(0, 4)))
        assert isinstance(outputs, OnCuda)
        assert all(isinstance(t, OnCuda) for t in made.state_dict().values())
        assert correct_images(made, data.test).shape == (len(data.test),)
        assert 0 < count_nonzeros(made) <= count_parameters(made)
        assert count_macs(made, data.test.inputs(slice(0, 1))) > 0


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "static"])
def test_a_prediction_never_waits_for_the_device(kind: str) -> None:
    """One that does fits no CUDA graph; the reference executor of static INT8 may."""
    with pretend_cuda(), torch.inference_mode():
        model = KINDS[kind](residual())
        wanted = model(images(4))
        model, x = model.to(CUDA), images(4).to(CUDA)
        found = model(x)  # what is made once is made now
        WAITS.clear()
        assert isinstance(model(x), OnCuda)
        assert WAITS == []
        # on a CPU a float16 network computes in float32
        assert torch.allclose(found.cpu(), wanted, atol=0.05)
        assert len(WAITS) == 1, "the copy to the CPU"


@pytest.mark.parametrize("loss", [Hinton(), Standardized(), Decoupled(), Dist()], ids=repr)
def test_a_loss_of_a_teacher_never_waits_for_the_device(loss: Any) -> None:
    torch.manual_seed(0)
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([1, 4, -100, 0])
    wanted = loss(student, teacher, labels)
    with pretend_cuda(), torch.no_grad():
        there = [x.to(CUDA) for x in (student, teacher, labels)]
        WAITS.clear()
        found = loss(*there)
        assert isinstance(found, OnCuda)
        assert WAITS == []
        assert torch.isclose(found.cpu(), wanted)


@pytest.mark.parametrize("option", ["percentile", "equalization", "bias_correction"])
def test_static_int8_has_all_its_options_there(option: str) -> None:
    chosen = {"method": option} if option == "percentile" else {option: True}
    with pretend_cuda(), torch.no_grad():
        quantized = quantize_static(residual().to(CUDA), images().to(CUDA), **chosen)
        assert isinstance(quantized(images(4).to(CUDA)), OnCuda)


@pytest.mark.parametrize("name", ["residual", "unet, transposed", "signals"])
def test_weights_are_rounded_there(name: str) -> None:
    """By GPTQ, of layers of each kind."""
    network, inputs = (residual(), images()) if name == "residual" else shaped_nets.made(name)
    with pretend_cuda(), torch.no_grad():
        x = inputs.to(CUDA)
        made = quantize_weights(network.eval().to(CUDA), num_bits=4, calibration=x)
        assert all(isinstance(outputs, OnCuda) for outputs in tensors_in(made(x)))
        assert all(isinstance(tensor, OnCuda) for tensor in made.state_dict().values())


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "residual": lambda: (residual(), images()),
    **{name: partial(shaped_nets.made, name) for name in (*shaped_nets.NETS, "lraspp")},
    **transformer_nets.NETS,
    **{name: partial(structured_nets.made, name) for name in structured_nets.STRUCTURES},
}

QUANTIZED_HERE = {*transformer_nets.NETS, "a norm behind an output"}
"""Not on the pretended card: it loses views that are copied, and has no parameters made there."""


@pytest.mark.parametrize("name", NETWORKS)
def test_the_triton_executor_is_made_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network on the card, for its inputs: what is launched is given tensors of the card only."""
    given: list[object] = []

    class Kernel:
        def __getitem__(self, grid: tuple[int, int]) -> object:
            return lambda *args, **named: given.extend([*args, *named.values()])

    network, inputs = NETWORKS[name]()
    made = quantize_static(network.eval(), inputs) if name in QUANTIZED_HERE else None
    monkeypatch.setattr(Launch, "_kernel", lambda *_: Kernel())
    monkeypatch.setattr(TritonModel, "capture", lambda _: None)
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    with pretend_cuda(), torch.inference_mode():
        x = inputs[:4].to(CUDA)
        static = made or quantize_static(network.to(CUDA), x)
        integer = lower_triton(static.to(CUDA), x, config=DEFAULT)
        outputs = list(tensors_in(integer(x)))
        assert outputs
        assert all(isinstance(tensor, OnCuda) for tensor in outputs)
    tensors = [value for value in given if isinstance(value, torch.Tensor)]
    assert len(tensors) > 8 * len(integer.launches)
    assert all(isinstance(tensor, OnCuda) for tensor in tensors)


def test_what_mixes_devices_fails_as_it_would_on_a_card() -> None:
    with pretend_cuda(), pytest.raises(RuntimeError, match="found cuda and cpu"):
        mlp()(images(4).to(CUDA))
