"""Every function of the face that takes a network leaves it as it came, but fit, which trains it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compression as c
from tests.support.compared import untouched
from tests.support.nets import RECIPE, images, residual, split

Verb = Callable[[nn.Module], object]
PARAMETERS = ("model", "student", "teacher")


def of(made: Verb, verb: Verb) -> Verb:
    """Call `verb` with the network that `made` returns, which must stay too."""

    def call(net: nn.Module) -> None:
        given: Any = made(net)
        with untouched(given):
            verb(given)

    return call


CALLS: dict[str, Verb] = {
    "cast": lambda m: c.cast(m, torch.float16),
    "count_macs": lambda m: c.count_macs(m, images(1)),
    "deploy": of(lambda m: c.quantize_static(m, images()), lambda m: c.deploy(m, images(1))),
    "distill": lambda m: c.distill(m, residual(seed=1), split(), RECIPE),
    "explain": lambda m: c.explain(m, images(1)),
    "fine_tune": lambda m: c.fine_tune(m, split(), RECIPE),
    "fine_tune_centroids": of(
        lambda m: c.share_weights(m, num_clusters=4),
        lambda m: c.fine_tune_centroids(m, split(), RECIPE),
    ),
    "learn_pruned": lambda m: c.learn_pruned(m, split(), RECIPE, amount=0.5, steps=2),
    "learn_shared": lambda m: c.learn_shared(m, split(), RECIPE, num_clusters=4, steps=2),
    "left_out": c.left_out,
    "lower_semi_structured": lambda m: c.lower_semi_structured(m, images(1)),
    "prune_gradually": lambda m: c.prune_gradually(m, split(), RECIPE, amount=0.5),
    "prune_iteratively": lambda m: c.prune_iteratively(m, split(), RECIPE, amount=0.5, rounds=1),
    "prune_l1_global": lambda m: c.prune_l1_global(m, amount=0.5),
    "prune_l1_unstructured": lambda m: c.prune_l1_unstructured(m, amount=0.5),
    "prune_ln_structured": lambda m: c.prune_ln_structured(m, amount=0.5),
    "prune_n_of_m": c.prune_n_of_m,
    "prune_random_unstructured": lambda m: c.prune_random_unstructured(m, amount=0.5),
    "quantize_aware": lambda m: c.quantize_aware(m, split(), RECIPE, images()),
    "quantize_dynamic": c.quantize_dynamic,
    "quantize_static": lambda m: c.quantize_static(
        m, images(), rounding="gptq", equalization=True, bias_correction=True
    ),
    "quantize_weights": lambda m: c.quantize_weights(m, num_bits=4, calibration=images()),
    "recalibrate_batch_norm": lambda m: c.recalibrate_batch_norm(m, images()),
    "remove_channels": lambda m: c.remove_channels(m, images(1), macs=0.5, multiple_of=2),
    "remove_channels_softly": lambda m: c.remove_channels_softly(
        m, images(1), split(), RECIPE, macs=0.5, multiple_of=2
    ),
    "round_vectors": c.round_vectors,
    "share_weights": lambda m: c.share_weights(m, num_clusters=4, bit_cost=0.1),
    "sparsity": c.sparsity,
}
WRITERS = {"save", "export_onnx"}
IN_PLACE = {"fit"}


def takes_a_network(name: str) -> bool:
    verb: Any = getattr(c, name)
    return inspect.isfunction(verb) and not inspect.signature(verb).parameters.keys().isdisjoint(
        PARAMETERS
    )


def test_no_function_is_forgotten() -> None:
    assert {n for n in c.__all__ if takes_a_network(n)} == {*CALLS, *WRITERS, *IN_PLACE}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", CALLS)
def test_the_network_is_as_it_was(name: str, training: bool) -> None:
    net = residual().train(training)
    gradients = [p.requires_grad for p in net.parameters()]
    with untouched(net):
        CALLS[name](net)
    assert [p.requires_grad for p in net.parameters()] == gradients
    assert all(p.grad is None for p in net.parameters())


def test_a_teacher_is_as_it_was() -> None:
    teacher = residual(seed=1).train()
    with untouched(teacher):
        c.distill(residual(), teacher, split(), RECIPE)


def test_writing_a_file_leaves_the_network(tmp_path: Path) -> None:
    net = residual().train()
    with untouched(net):
        c.save(net, tmp_path / "model.safetensors", entropy_coded=True)
    pytest.importorskip("onnx")
    small = c.quantize_static(net, images())
    with untouched(small):
        c.export_onnx(small, tmp_path / "model.onnx", images(1))
