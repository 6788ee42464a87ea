"""Attention transfer: maps, their distance, and layers that are seen and left without a hook."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.distillation import AttentionTransfer, Dist, Hinton, attention_distance, distill
from compression.distillation.layers import watching
from compression.errors import CompressionError
from compression.training import Recipe
from tests.support import distillation_references as right
from tests.support.compared import fingerprint
from tests.support.functional import Net
from tests.support.nets import RECIPE, images, residual, split

BLOCKS = {"conv2": "conv2", "pool": "conv1"}


def hooks_of(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_it_is_the_reference_s_and_its_gradient_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(3, 4, 5, 6).double(), torch.randn(3, 7, 5, 6).double()
    found = attention_distance(x, y)
    assert found.item() == pytest.approx(right.attention(x.numpy(), y.numpy()), rel=1e-12)
    assert torch.autograd.gradcheck(lambda z: attention_distance(z, y), x.requires_grad_())
    half = attention_distance(x.detach().half() * 300, y.half())  # whose squares are no halves
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(found.item(), rel=0.01)


@pytest.mark.parametrize("shape", [(2, 6, 8), (2, 6, 8, 9), (2, 6, 4, 5, 6)])
def test_neither_size_nor_sign_of_activations_counts(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, *shape)
    found = attention_distance(x, y)
    assert torch.isclose(attention_distance(-7 * x, y * 0.01), found, rtol=1e-5)
    assert attention_distance(x, x) == 0
    assert torch.equal(attention_distance(x.movedim(1, -1), y.movedim(1, -1), axis=-1), found)
    larger = y.repeat_interleave(2, -1)
    if x.ndim == 3:  # each position twice: its average is itself
        assert torch.isclose(attention_distance(x, larger), found, rtol=1e-5)
        assert torch.isclose(attention_distance(larger, x), found, rtol=1e-5)


def test_maps_of_other_sizes_are_averaged_to_the_smaller_in_each_direction() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, 3, 8, 4), torch.randn(2, 5, 4, 8)
    maps = [F.adaptive_avg_pool2d(z.square().mean(1, keepdim=True), 4) for z in (x, y)]
    units = [F.normalize(m.flatten(1), dim=1) for m in maps]
    assert torch.isclose(attention_distance(x, y), F.mse_loss(*units))


def test_layers_that_are_silent_have_no_gradient_of_noise() -> None:
    x = torch.zeros(2, 3, 4, 4).requires_grad_()
    attention_distance(x, torch.rand(2, 3, 4, 4)).backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


REFUSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], int, str]] = {
    "other batches": ((2, 3, 4, 4), (3, 3, 4, 4), 1, "of as many images and axes"),
    "other axes": ((2, 3, 4, 4), (2, 3, 16), 1, r"found \(2, 3, 4, 4\) float32 and \(2, 3, 16\)"),
    "vectors": ((2, 3), (2, 3), 1, r"expected floating-point numbers \(N, channels, positions"),
    "an axis too far": ((2, 3, 4), (2, 3, 4), 3, "along axis 3"),
    "the images' axis": ((2, 3, 4), (2, 3, 4), -3, "along axis -3"),
    "other tokens": ((2, 5, 8), (2, 10, 8), -1, r"maps of tokens .* found \(5,\) .* \(10,\)"),
    "nothing": ((0, 3, 4), (0, 3, 4), 1, "expected floating-point"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_activations_that_do_not_go_together_are_named(name: str) -> None:
    one, other, axis, message = REFUSED[name]
    with pytest.raises(CompressionError, match=message):
        attention_distance(torch.ones(one), torch.ones(other), axis=axis)


OPTIONS: list[tuple[Any, dict[str, Any], str]] = [
    ({}, {}, "layers must map"),
    ("conv1", {}, "layers must map"),
    ({"conv1": 1}, {}, "layers must map"),
    (BLOCKS, {"beta": 0}, "beta must be above 0"),
    (BLOCKS, {"axis": 0}, "axis must be"),
    (BLOCKS, {"axis": True}, "axis must be"),
    (BLOCKS, {"logits": AttentionTransfer(BLOCKS)}, "logits must be Hinton, .* AttentionTransfer"),
]


@pytest.mark.parametrize(("layers", "options", "message"), OPTIONS)
def test_options_out_of_range_are_refused(
    layers: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        AttentionTransfer(layers, **options)


def test_the_loss_is_that_of_the_logits_and_beta_times_the_maps() -> None:
    student, teacher, train = residual(), residual(seed=1), split(16)
    one_step = Recipe(epochs=1, batch_size=16, learning_rate=1e-9)
    losses: list[float] = []
    for beta in (10.0, 20.0):
        by = AttentionTransfer(BLOCKS, beta=beta, logits=Dist())
        distill(
            student, teacher, train, one_step, distillation=by,
            on_epoch=lambda report: losses.append(report.mean_loss),
        )  # fmt: skip
    distill(
        student, teacher, train, one_step, distillation=Dist(),
        on_epoch=lambda report: losses.append(report.mean_loss),
    )  # fmt: skip
    with torch.no_grad(), watching(student, BLOCKS, "s") as s:
        student.train()(train.images)
        with watching(teacher, BLOCKS.values(), "t") as t:
            teacher(train.images)
            maps = sum(attention_distance(s[a][0], t[b][0]) for a, b in BLOCKS.items())
    assert losses[1] - losses[0] == pytest.approx(10 * float(maps), rel=1e-3)
    assert losses[0] - losses[2] == pytest.approx(10 * float(maps), rel=1e-3)


def test_the_student_s_maps_come_nearer_to_the_teacher_s() -> None:
    student, teacher, train = residual(), residual(seed=1), split(64)

    @torch.no_grad()
    def distance(net: nn.Module) -> float:
        found = []
        for watched in (net, teacher):
            with watching(watched, ["conv1"], "one") as seen:
                watched.eval()(train.images)
                found.append(seen["conv1"][0])
        return float(attention_distance(*found))

    recipe = Recipe(epochs=4, batch_size=16, learning_rate=0.02)
    by = AttentionTransfer({"conv1": "conv1"})
    learnt = distill(student, teacher, train, recipe, distillation=by)
    assert distance(learnt) < 0.5 * distance(student)


def test_hooks_are_gone_afterwards_and_after_an_error() -> None:
    student, teacher, train = residual(), residual(seed=1), split(16)
    theirs = teacher.register_forward_hook(lambda *_: None)
    by = AttentionTransfer(BLOCKS, logits=Hinton())
    before = fingerprint(teacher)
    assert hooks_of(distill(student, teacher, train, RECIPE, distillation=by)) == 0
    assert (hooks_of(student), hooks_of(teacher)) == (0, 1)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(student, teacher, train, RECIPE, distillation=by, on_epoch=stop)
    with pytest.raises(CompressionError, match="has no layer"):
        distill(student, teacher, train, RECIPE, distillation=AttentionTransfer({"conv1": "no"}))
    assert (hooks_of(student), hooks_of(teacher)) == (0, 1)
    theirs.remove()
    assert fingerprint(teacher) == before


def test_a_teacher_of_other_classes_teaches_where_to_look() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1000))
    by = AttentionTransfer({"conv2": "0"})
    assert distill(residual(), teacher, split(16), RECIPE, distillation=by)
    by = AttentionTransfer({"conv2": "0"}, logits=Hinton())
    with pytest.raises(CompressionError, match=r"one shape, found \(16, 4\) and \(16, 1000\)"):
        distill(residual(), teacher, split(16), RECIPE, distillation=by)


def twice(net: Any, x: Tensor) -> Tensor:
    return net.fc(net.a(net.a(x)).flatten(1) + net.pair(x.flatten(1)[:, None])[0][:, 0, :1])  # type: ignore[no-any-return]


LAYERS = {
    "a layer that is not": ({"conv3": "conv1"}, "Residual, has no layer 'conv3'; it has conv"),
    "the teacher's": ({"conv1": "a.b"}, r"the teacher, Net, has no layer 'a\.b'; it has"),
    "called twice": ({"conv1": "a"}, "a: expected a layer .* the teacher's .* once, found 2"),
    "never called": ({"conv1": "b"}, "found 0 calls; name another layer"),
    "a tuple": ({"conv1": "pair"}, "pair: expected a layer .* one tensor, found tuple"),
    "vectors": ({"fc": "fc"}, "the student's activations: expected floating-point"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_have_no_map_are_named(name: str) -> None:
    torch.manual_seed(0)
    teacher = Net(
        twice, a=nn.Conv2d(3, 3, 3, padding=1), b=nn.Conv2d(3, 3, 1), fc=nn.Linear(192, 4),
        pair=nn.LSTM(192, 8),
    )  # fmt: skip
    layers, message = LAYERS[name]
    with pytest.raises(CompressionError, match=message):
        distill(residual(), teacher, split(16), RECIPE, distillation=AttentionTransfer(layers))
    assert hooks_of(teacher) == 0


def test_only_the_latest_forward_is_seen_and_nothing_is_kept() -> None:
    net = residual()
    with watching(net, ["conv1"], "network") as seen:
        for count in (4, 2):
            net(images(count))
        assert [len(x) for x in seen["conv1"]] == [2]
    assert seen == {}
