"""The steps of a training: bit for bit the plain loop's, and none that a GPU would wait for."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from compression.errors import CompressionError
from compression.training import Recipe, Split, fit
from compression.training.batches import batches, cut_out
from compression.training.loop import forward_of
from compression.training.optimizers import optimizer_of
from compression.training.recipe import rate_of
from tests.support.nets import RECIPE, residual
from tests.support.steps import PLAIN, Poison, pictures

CPU = torch.device("cpu")


def plain_fit(model: nn.Module, train: Split, recipe: Recipe) -> list[float]:
    """Train as before there were GPUs: one generator on the CPU, the loss looked at in each step."""
    steps = math.ceil(len(train) / recipe.batch_size) * recipe.epochs
    optimizer = optimizer_of(model, recipe)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: rate_of(recipe, i / steps))
    losses = []
    for epoch in range(recipe.epochs):
        model.train()
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        total = torch.zeros(())
        for index in torch.randperm(len(train), generator=generator).split(recipe.batch_size):
            inputs = train.augmented(index, generator)
            if epoch < len(recipe.coarse_sizes):
                size = recipe.coarse_sizes[epoch]
                inputs = F.interpolate(inputs, size=size, mode="bilinear", antialias=True)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            value = F.cross_entropy(
                model(inputs), train.labels[index], label_smoothing=recipe.label_smoothing
            )
            assert torch.isfinite(value)
            value.backward()
            optimizer.step()
            scheduler.step()
            total += value.detach() * len(index)
        losses.append(total.item() / len(train))
    return losses


def test_on_a_cpu_the_weights_are_those_of_the_plain_loop() -> None:
    expected, found = residual(), residual()
    losses = plain_fit(expected, pictures(), PLAIN)
    reported: list[float] = []
    before = torch.get_rng_state()
    fit(found, pictures(), PLAIN, on_epoch=lambda report: reported.append(report.mean_loss))
    assert torch.equal(torch.get_rng_state(), before), "the global generator is given back"
    assert reported == losses
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, found.state_dict()[name]), name


class Reads(TorchDispatchMode):
    """Counts what a device would be waited for: scalars read from tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def reads_of(images: int) -> int:
    with Reads() as reads:
        fit(residual(), pictures(images), replace(PLAIN, epochs=1, batch_size=8, cutout=4))
    return reads.count


def test_reads_of_the_loss_do_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_of(64) > reads_of(32), "on a CPU each step looks"
    monkeypatch.setattr("compression.training.run.CHECK_EVERY", {})  # a CPU as other devices
    assert reads_of(64) == reads_of(32) <= 2, "the check at the end of the epoch, and its mean"


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("step", [5, 7, 8])  # of four an epoch: in the midst and last
def test_a_diverged_epoch_is_never_reported(
    monkeypatch: pytest.MonkeyPatch, every: int, step: int
) -> None:
    monkeypatch.setattr("compression.training.run.CHECK_EVERY", {"cpu": every})
    epochs: list[int] = []
    poison = Poison(step)
    with pytest.raises(CompressionError, match=r"became nan in epoch 2 of 3 at learning rate 0\.0"):
        fit(
            residual(),
            pictures(64),
            replace(PLAIN, batch_size=16),
            loss=poison,
            on_epoch=lambda report: epochs.append(report.epoch),
        )
    assert epochs == [0]
    assert poison.steps == (step if every == 1 else 7 if (every, step) < (3, 8) else 8)


def test_only_the_training_device_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = residual()
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("another device's"))
    fit(model, pictures(32), replace(PLAIN, epochs=1))
    assert seeded == [], "no GPU's generator"


def test_a_batch_holds_each_image_once_in_another_order_an_epoch() -> None:
    data = replace(pictures(50), augment=None)
    data = replace(data, labels=torch.arange(50))
    orders = []
    for epoch in (0, 0, 1):
        found = list(batches(data, replace(RECIPE, batch_size=20), epoch, CPU))
        assert [len(inputs) for inputs, _ in found] == [20, 20, 10]
        orders.append(torch.cat([labels for _, labels in found]))
        assert torch.equal(torch.cat([i for i, _ in found]), data.inputs(orders[-1]))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert orders[2].sort().values.equal(torch.arange(50))


def test_a_cut_out_square_is_zero_and_the_rest_is_kept() -> None:
    inputs = torch.rand(200, 3, 32, 32) + 1
    found = cut_out(inputs, 8, torch.Generator().manual_seed(0))
    hidden = found == 0
    assert torch.equal(found[~hidden], inputs[~hidden])
    assert torch.equal(hidden[:, 0], hidden[:, 2]), "all channels of a pixel"
    heights, widths = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert torch.equal(hidden[:, 0].sum((1, 2)), heights * widths), "a rectangle"
    sizes = Counter(heights.tolist())
    assert max(sizes) == 8
    assert min(sizes) >= 4, "its centre lies inside"
    assert sizes[8] > 100, "25 of 33 positions lie wholly inside"


@pytest.mark.parametrize(
    ("precision", "there", "dtype"),
    [
        ("bfloat16", True, torch.bfloat16),
        ("bfloat16", False, torch.float32),
        ("float32", True, torch.float32),
    ],
)
def test_bfloat16_where_asked_and_computed(
    monkeypatch: pytest.MonkeyPatch, precision: Any, there: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("compression.training.loop.has_bfloat16", lambda _: there)
    model, seen = residual(), []
    model.conv1.register_forward_hook(lambda *found: seen.append(found[-1].dtype))
    logits = forward_of(model, replace(RECIPE, precision=precision), CPU)(torch.rand(2, 3, 8, 8))
    assert seen == [dtype]
    assert logits.dtype == torch.float32


def test_compiled_only_where_asked_and_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def compile_(model: nn.Module, **options: Any) -> nn.Module:
        calls.append(options)
        return model

    monkeypatch.setattr(torch, "compile", compile_)
    compiled = replace(RECIPE, compiled=True)
    for recipe, device in ((compiled, "cpu"), (RECIPE, "cuda"), (compiled, "cuda")):
        forward_of(residual(), recipe, torch.device(device))
    assert calls == [{"dynamic": False}]


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")
def test_the_compiled_step_trains_the_models_own_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **o: real(m, backend="aot_eager", **o))
    eager, model = residual().train(), residual().train()
    for each in (eager, model):
        each.drop.p = 0.0
    forward = forward_of(model, replace(RECIPE, compiled=True), torch.device("cuda"))
    inputs = pictures(8).inputs(slice(0, 8))
    eager(inputs).sum().backward()
    forward(inputs).sum().backward()
    assert model.state_dict().keys() == eager.state_dict().keys()
    for (name, tensor), same in zip(
        model.state_dict().items(), eager.state_dict().values(), strict=True
    ):
        assert torch.allclose(tensor, same, atol=1e-5), name  # batch norm's statistics too
    for p, q in zip(model.parameters(), eager.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-4)
