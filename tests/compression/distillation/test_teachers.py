"""One teacher for everything that trains: the loss is the one chosen, and the teacher stays."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import compression as c
from compression.distillation import Distillation
from compression.schedules import train_between
from tests.support.compared import fingerprint, untouched
from tests.support.nets import images, residual, split

SHORT = c.Recipe(epochs=2, batch_size=8, learning_rate=0.02)
TRAIN = split(16)
VERBS: dict[str, Callable[..., nn.Module]] = {
    "distill": lambda m, t, r, teacher, **o: c.distill(m, teacher, t, r, **o),
    "fine_tune": c.fine_tune,
    "fine_tune_centroids": lambda m, t, r, **o: c.fine_tune_centroids(
        c.share_weights(m, num_clusters=4), t, r, **o
    ),
    "quantize_aware": lambda m, t, r, **o: c.quantize_aware(m, t, r, images(), **o),
    "prune_gradually": lambda m, t, r, **o: c.prune_gradually(m, t, r, amount=0.5, every=1, **o),
    "prune_iteratively": lambda m, t, r, **o: c.prune_iteratively(
        m, t, r, amount=0.5, rounds=2, **o
    ),
    "learn_pruned": lambda m, t, r, **o: c.learn_pruned(m, t, r, amount=0.5, steps=2, **o),
    "learn_shared": lambda m, t, r, **o: c.learn_shared(m, t, r, num_clusters=4, steps=2, **o),
    "remove_channels_softly": lambda m, t, r, **o: c.remove_channels_softly(
        m, images(1), t, r, macs=0.5, multiple_of=2, **o
    ),
    "train_between": lambda m, t, r, **o: train_between(m, t, r, lambda *_: None, **o),
}
CHOICES: dict[str, Distillation] = {
    "hinton": c.Hinton(),
    "standardized": c.Standardized(),
    "decoupled": c.Decoupled(),
    "dist": c.Dist(),
    "attention": c.AttentionTransfer({"conv1": "conv1", "pool": "pool"}),
}
every_verb = pytest.mark.parametrize("name", VERBS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spied(c.Dist):
    """Notes what the loss is asked."""

    asked: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor, **options: Any) -> Tensor:
        self.asked.append((teacher, labels))
        return super(Spied, self).__call__(student, teacher, labels, **options)


def test_no_verb_that_takes_a_teacher_is_forgotten() -> None:
    taking = {
        name
        for name in c.__all__
        if inspect.isfunction(verb := getattr(c, name))
        and "teacher" in (parameters := inspect.signature(verb).parameters)
        and parameters["distillation"].default == c.Hinton(temperature=4.0, alpha=0.5)
    }
    assert taking == VERBS.keys() - {"train_between"}


@every_verb
def test_each_choice_trains_another_network_and_the_teacher_stays(name: str) -> None:
    teacher, found = residual(seed=1).train(), {}
    for choice, distillation in CHOICES.items():
        model = residual()
        with untouched(model), untouched(teacher):
            made = VERBS[name](model, TRAIN, SHORT, teacher=teacher, distillation=distillation)
        found[choice] = fingerprint(made)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in made.modules())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in teacher.modules())
    assert len(set(found.values())) == len(CHOICES), "each loss is its own"
    default = VERBS[name](residual(), TRAIN, SHORT, teacher=teacher)
    assert fingerprint(default) == found["hinton"]


@every_verb
def test_the_loss_is_asked_at_each_step_of_the_teacher_s_predictions(name: str) -> None:
    teacher = residual(seed=1).train()
    Spied.asked.clear()
    VERBS[name](residual(), TRAIN, SHORT, teacher=teacher, distillation=Spied())
    assert len(Spied.asked) == 4, "two epochs of two batches"
    right = teacher.eval()(TRAIN.images)
    for logits, _ in Spied.asked:
        assert not logits.requires_grad
        near = (logits[:, None] - right).abs().amax(2).amin(1)
        assert (near < 1e-5).all(), "each row is the teacher's of one image, in eval mode"
    seen = torch.cat([labels for _, labels in Spied.asked]).sort().values
    assert torch.equal(seen, TRAIN.labels.repeat(2).sort().values)


@every_verb
def test_what_is_no_loss_is_refused_with_a_teacher_and_without(name: str) -> None:
    wrong: Any
    for wrong in (c.Dist, "dist", None, 4.0):
        with pytest.raises(c.CompressionError, match=r"distillation must be Hinton\(\), .*found"):
            VERBS[name](residual(), TRAIN, SHORT, teacher=residual(), distillation=wrong)
    if name != "distill":
        with pytest.raises(c.CompressionError, match="distillation must be"):
            VERBS[name](residual(), TRAIN, SHORT, distillation="dist")
        alone = VERBS[name](residual(), TRAIN, SHORT)
        unheard = VERBS[name](residual(), TRAIN, SHORT, distillation=c.Dist())
        assert fingerprint(alone) == fingerprint(unheard), "without a teacher nobody teaches"


@pytest.mark.parametrize("choice", ["hinton", "standardized", "decoupled", "dist"])
def test_an_int8_teacher_on_its_kernels_teaches(choice: str) -> None:
    data = split(64)
    teacher = residual(seed=1)
    deployed = c.deploy(c.quantize_static(teacher, data.images), data.images[:1])
    before = deployed(data.images)
    learnt = c.distill(residual(), deployed, data, SHORT, distillation=CHOICES[choice])
    assert torch.equal(deployed(data.images), before)
    by_float = c.distill(residual(), teacher, data, SHORT, distillation=CHOICES[choice])
    apart = (learnt(data.images) - by_float(data.images)).norm()
    untaught = (residual()(data.images) - by_float(data.images)).norm()
    assert apart < 0.2 * untaught, "it says nearly what its float form says"


def test_an_int8_teacher_on_its_kernels_has_no_layers() -> None:
    data = split(16)
    deployed = c.deploy(c.quantize_static(residual(seed=1), data.images), data.images[:1])
    with pytest.raises(c.CompressionError, match="has no layer 'conv1'"):
        c.distill(residual(), deployed, data, SHORT, distillation=CHOICES["attention"])
