"""Training takes networks as people write them."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from compression.architectures import Architecture
from compression.distillation import distill
from compression.errors import CompressionError
from compression.pruning import fine_tune
from compression.quantization import quantize_aware
from compression.training import EpochReport, Split, feed_of, fit
from compression.training.batches import Feed
from tests.support.functional import Net
from tests.support.nets import mlp, residual, split
from tests.support.training_nets import ONE, Viewed, changed, noise, state

NETWORKS: dict[str, tuple[Callable[[], nn.Module], Split]] = {
    "a view": (Viewed, noise(9, 3, 8, 8)),
    "a view behind a permutation": (
        lambda: Net(lambda s, x: s.fc(x.permute(0, 3, 2, 1).reshape(len(x), -1)).view(-1, 5),
                       fc=nn.Linear(192, 5)),
        noise(9, 3, 8, 8),
    ),
    "features": (lambda: nn.Linear(6, 5), noise(9, 6)),
    "a signal": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(24, 5)),
        noise(9, 2, 8),
    ),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(16, 5)),
        noise(9, 1, 4, 4, 4),
    ),
    "a sequence": (
        lambda: Net(lambda s, x: s.fc(s.lstm(x)[0][:, -1]),
                       lstm=nn.LSTM(3, 8, batch_first=True), fc=nn.Linear(8, 5)),
        noise(9, 7, 3),
    ),
    "tokens": (
        lambda: Net(lambda s, x: s.fc(s.embedding(x).mean(1)),
                       embedding=nn.Embedding(5, 8), fc=nn.Linear(8, 5)),
        replace(noise(9, 7), images=torch.randint(0, 5, (9, 7))),
    ),
    "labels per pixel": (lambda: nn.Conv2d(3, 5, 3, padding=1), noise(9, 3, 8, 8, labels=(8, 8))),
    "labels of 32 bits": (mlp_of := lambda: mlp(), replace(split(9), labels=split(9).labels.int())),
    "labels of 8 bits": (mlp_of, replace(split(9), labels=split(9).labels.to(torch.uint8))),
    "probabilities": (mlp_of, replace(split(9), labels=torch.rand(9, 4).softmax(1))),
    "weight norm": (
        lambda: nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(192, 4))),
        split(9),
    ),
    "attention": (
        lambda: Net(lambda s, x: s.fc(s.layer(x).mean(1)), fc=nn.Linear(16, 5),
                       layer=nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)),
        noise(9, 7, 16),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_as_people_write_them_train(name: str) -> None:
    build, data = NETWORKS[name]
    for batch_size in (4, 9):  # a last batch of one, and none
        torch.manual_seed(0)
        model = build()
        before = state(model)
        fit(model, data, replace(ONE, batch_size=batch_size))
        assert changed(model, before)


def test_a_network_of_torchvisions_trains() -> None:
    torch.manual_seed(0)
    model = Architecture("mobilenet_v3_small", 5)()
    before = state(model)
    fit(
        model, noise(3, 3, 32, 32), replace(ONE, batch_size=2)
    )  # batch norm over one pixel, and a last batch of one
    assert changed(model, before)
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


def test_a_masked_weight_trains_and_its_mask_stays() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    prune.l1_unstructured(model[1], "weight", 0.5)
    model(torch.randn(1, 192)).sum()  # its weight is computed now: it has no copy any more
    before = state(model)
    fit(model, split(9), ONE)
    assert changed(model, before)
    assert torch.equal(model.state_dict()["1.weight_mask"], before["1.weight_mask"])


def test_every_technique_that_trains_takes_a_view() -> None:
    data = noise(9, 3, 8, 8)
    assert changed(fine_tune(Viewed(), data, ONE), Viewed().state_dict())
    for student, teacher in ((Viewed(), Viewed()), (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
                                                    Viewed())):  # fmt: skip
        distill(student, teacher, data, ONE)
    quantized = quantize_aware(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval(),
        data, ONE, data.images,
    )  # fmt: skip
    assert quantized(data.images).shape == (9, 5)


def test_a_network_is_fed_channels_last_where_it_can_be_and_is_not_touched_by_the_trial() -> None:
    torch.manual_seed(5)
    drawn = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state())  # type: ignore[union-attr]

    def watched(model: nn.Module, x: Tensor) -> Any:
        model.calls += 1
        random.random(), np.random.rand(), torch.rand(1)
        return model.net(x)

    for build, memory_format in (
        (residual, torch.channels_last),
        (Viewed, torch.contiguous_format),
    ):
        model = Net(watched, net=build())
        model.calls = 0  # type: ignore[assignment]
        before = state(model)
        torch.set_rng_state(drawn[2])
        assert feed_of(model, split(9), ONE) == Feed(memory_format)
        assert not changed(model, before)
        assert model.calls == 0
        assert all(p.grad is None for p in model.parameters())
        assert random.getstate() == drawn[0]
        assert np.random.get_state()[1].tolist() == drawn[1]  # type: ignore[union-attr]
        assert torch.equal(torch.get_rng_state(), drawn[2])


def test_a_trained_view_has_the_weights_of_the_same_network_without_one() -> None:
    data, found = noise(9, 3, 8, 8), []
    for how in (Tensor.view, Tensor.reshape):
        torch.manual_seed(0)

        def flat(s: Any, x: Tensor, how: Any = how) -> Any:
            return s.fc(how(s.conv(x.contiguous()), (len(x), -1)))

        model = Net(
            flat,
            conv=nn.Conv2d(3, 4, 3), fc=nn.Linear(144, 5),
        )  # fmt: skip
        fit(model, data, ONE)
        found.append(state(model))
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-6), name


NORMED: dict[str, Callable[[], nn.Module]] = {
    "(1, C)": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)),
    "(1, C, 1, 1)": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5)
    ),
    "squeezed": lambda: Net(
        lambda s, x: s.pool(s.conv(x)).squeeze(), conv=nn.Conv2d(3, 5, 3),
        pool=nn.AdaptiveAvgPool2d(1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMED)
def test_a_last_batch_of_one_joins_the_one_before_it_where_it_must(name: str) -> None:
    sizes: list[int] = []

    def loss(logits: Tensor, labels: Tensor, inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return nn.functional.cross_entropy(logits, labels)

    losses: list[EpochReport] = []
    fit(NORMED[name](), noise(9, 3, 8, 8), ONE, loss=loss, on_epoch=losses.append)
    assert sizes == [4, 5]
    fit(mlp(), split(9), ONE, loss=loss)
    assert sizes[2:] == [4, 4, 1], "a network that can takes it as it is"
    whole = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 5))
    fit(whole, noise(9, 3, 8, 8), ONE, loss=loss)
    assert sizes[5:] == [4, 4, 1], "batch norm over many pixels can"


@pytest.mark.parametrize("name", ["(1, C)", "(1, C, 1, 1)"])
def test_batches_of_one_that_cannot_be_trained_are_refused(name: str) -> None:
    with pytest.raises(CompressionError, match=r"a batch of one image.*batch_size to 2 or more"):
        fit(NORMED[name](), noise(9, 3, 8, 8), replace(ONE, batch_size=1))
    with pytest.raises(CompressionError, match=r"a batch of one image.*pass more images"):
        fit(NORMED[name](), noise(1, 3, 8, 8), ONE)


def test_ignored_labels_and_frozen_layers_train_the_rest() -> None:
    model, data = mlp(), split(9)
    model[1].requires_grad_(False)  # type: ignore[operator]
    before = state(model)
    fit(
        model,
        replace(data, labels=torch.where(data.images[:, 0, 0, 0] > 1, -100, data.labels)),
        ONE,
    )
    assert torch.equal(model.state_dict()["1.weight"], before["1.weight"])
    assert not torch.equal(model.state_dict()["3.weight"], before["3.weight"])


def test_training_learns_where_gradients_are_turned_off() -> None:
    model = mlp()
    before = state(model)
    with torch.no_grad():
        fit(model, split(8), ONE)
    assert changed(model, before)
    with (
        torch.inference_mode(),
        pytest.raises(CompressionError, match=r"within torch\.inference_mo"),
    ):
        fit(model, split(8), ONE)
