"""What holds for each schedule: inputs, seeds, teachers, and networks as people write them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compression.clustering import fine_tune_centroids, share_weights
from compression.distillation import Hinton
from compression.errors import CompressionError
from compression.layers import left_out
from compression.pruning import fine_tune, sparsity
from compression.quantization import quantize_aware
from compression.schedules import (
    learn_pruned,
    learn_shared,
    prune_gradually,
    prune_iteratively,
    train_between,
)
from compression.training import Recipe, Split
from compression.weights import weights
from tests.support.compared import fingerprint, untouched
from tests.support.functional import Net
from tests.support.nets import images, residual, split
from tests.support.training_nets import noise

SHORT = Recipe(epochs=2, batch_size=8, learning_rate=0.02)
TRAIN = split(16)
PRUNING = {
    "gradual": lambda m, t, r, **o: prune_gradually(m, t, r, **{"amount": 0.5, "every": 1, **o}),
    "iterative": lambda m, t, r, **o: prune_iteratively(
        m, t, r, **{"amount": 0.5, "rounds": 2, **o}
    ),
    "learned": lambda m, t, r, **o: learn_pruned(m, t, r, **{"amount": 0.5, "steps": 2, **o}),
}
SCHEDULES: dict[str, Callable[..., nn.Module]] = {
    **PRUNING,
    "shared": lambda m, t, r, **o: learn_shared(m, t, r, num_clusters=4, steps=2, **o),
    "between": lambda m, t, r, **o: train_between(m, t, r, lambda *_: None, **o),
    "fine_tune": fine_tune,
    "centroids": lambda m, t, r, **o: fine_tune_centroids(
        share_weights(m, num_clusters=4), t, r, **o
    ),
}
TAUGHT = {**SCHEDULES, "aware": lambda m, t, r, **o: quantize_aware(m, t, r, images(), **o)}


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teacher_changes_the_weights_and_stays_and_without_a_share_it_does_nothing(
    name: str,
) -> None:
    model, teacher = residual().train(), residual(seed=1).train()
    with untouched(model), untouched(teacher):
        taught = TAUGHT[name](model, TRAIN, SHORT, teacher=teacher)
    assert not taught.training or name == "aware"
    assert all(p.grad is None for p in [*model.parameters(), *teacher.parameters()])
    with untouched(teacher):
        unheard = TAUGHT[name](
            residual(), TRAIN, SHORT, teacher=teacher, distillation=Hinton(alpha=0)
        )
    alone = TAUGHT[name](residual(), TRAIN, SHORT)
    assert fingerprint(unheard) == fingerprint(alone) != fingerprint(taught)


def tied() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 192), nn.ReLU(), nn.Linear(192, 192))
    net[3].weight = net[1].weight
    return net


def frozen() -> nn.Module:
    net = residual()
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith("conv"))
    return net


def transposed() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.ConvTranspose2d(3, 4, 2, groups=1), nn.Flatten(), nn.Linear(324, 4))


def attending() -> nn.Module:
    torch.manual_seed(0)
    return Net(
        lambda s, x: s.fc(s.lstm(s.layer(s.embedding(x)))[0].mean(1)),
        embedding=nn.Embedding(5, 8),
        layer=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lstm=nn.LSTM(8, 4, batch_first=True),
        fc=nn.Linear(4, 5),
    )


TOKENS = replace(noise(16, 7), images=torch.randint(0, 5, (16, 7)))
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Split]] = {
    "tied": (tied, TRAIN),
    "frozen": (frozen, TRAIN),
    "transposed": (transposed, TRAIN),
    "float64": (lambda: residual().double(), replace(TRAIN, prepare=Tensor.double)),
    "bfloat16": (lambda: tied().bfloat16(), replace(TRAIN, prepare=Tensor.bfloat16)),
    "attention": (attending, TOKENS),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_networks_as_people_write_them(name: str, network: str) -> None:
    build, train = NETWORKS[network]
    model = build()
    with untouched(model):
        found = SCHEDULES[name](model, train, SHORT, teacher=model)
    parameters = dict(model.named_parameters())
    assert {n: (p.dtype, p.requires_grad) for n, p in found.named_parameters()} == {
        n: (p.dtype, p.requires_grad) for n, p in parameters.items()
    }, "dtypes, ties, and what is frozen stay"
    assert any(not torch.equal(p, parameters[n]) for n, p in found.named_parameters())
    reached = [weight.tensor for weight in weights(found)]
    zeros = sum(int((t == 0).sum()) for t in reached)
    count = sum(t.numel() for t in reached)
    if name in PRUNING:
        assert zeros == round(0.5 * count)
    if name == "shared":
        assert max(len(t.unique()) for t in reached) <= 4
    if name in (*PRUNING, "shared"):
        assert ("embedding.weight" in left_out(found)) == (network == "attention")


@pytest.mark.parametrize("name", PRUNING)
def test_wrong_amounts_are_refused_before_training(name: str) -> None:
    schedule, never = PRUNING[name], Split(TRAIN.images, TRAIN.labels, pytest.fail)
    for amount in (1.0, -0.1, True, "half"):
        with pytest.raises(CompressionError, match="amount is the fraction to remove"):
            schedule(residual(), never, SHORT, amount=amount)
    with pytest.raises(CompressionError, match="scope must be 'global' or 'layer', found 'net'"):
        schedule(residual(), never, SHORT, scope="net")
    with pytest.raises(CompressionError, match="keeps 1 of 856 weights, fewer than the 3 layers"):
        schedule(residual(), never, SHORT, amount=0.999)
    with pytest.raises(CompressionError, match=r"fc: an amount of 0\.995 removes all of its 64"):
        schedule(residual(), never, SHORT, amount=0.995, scope="layer")


@pytest.mark.parametrize("name", PRUNING)
def test_no_layer_is_emptied(name: str) -> None:
    model = residual()
    with torch.no_grad():
        model.get_parameter("conv2.weight").mul_(1e-6)
    found = PRUNING[name](model, TRAIN, SHORT, amount=0.98)
    assert sparsity(found) == round(0.98 * 856) / 856
    assert all(weight.tensor.any() for weight in weights(found))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be a whole number of at least 1, found 0"),
        ({"every": True}, "every must be"),
        ({"until": 1.5}, "until must be a fraction of the training, 0 to 1, found 1.5"),
        ({"until": float("nan")}, "until must be"),
    ],
)
def test_wrong_options_of_gradual_pruning_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        prune_gradually(residual(), TRAIN, SHORT, amount=0.5, **options)
