"""Properties of pruning, sharing, small weights, casts, files and training, each of one program."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compression.accounting import count_macs
from compression.clustering import share_weights
from compression.distillation import Decoupled, Dist, Standardized, distill
from compression.errors import CompressionError
from compression.graph import fold_batch_norm
from compression.layers import left_out
from compression.pruning import (
    prune_l1_global,
    prune_l1_unstructured,
    prune_ln_structured,
    prune_n_of_m,
    prune_random_unstructured,
    sparsity,
)
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.recalibration import recalibrate_batch_norm
from compression.storage import load, save
from compression.training import Recipe, Split, fit
from tests.support.bounds import BFLOAT16, DYNAMIC, FLOAT16, STATIC, Rounding, of_bits
from tests.support.compared import assert_equal, assert_within, bounds, run, untouched
from tests.support.program import Program
from tests.support.refusals import RefusedError, attempt

AMOUNT, CLUSTERS = 0.5, 4
ONE_STEP = Recipe(epochs=1, batch_size=4, learning_rate=1e-3)
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
Technique = Callable[[nn.Module, Program], nn.Module]


def _static(net: nn.Module, program: Program) -> nn.Module:
    x = program.inputs()
    return quantize_static(net, x[0] if len(x) == 1 else x)


# name: (what does it, what a refusal is looked up under, what it rounds)
TECHNIQUES: dict[str, tuple[Technique, str, Rounding | None]] = {
    "l1": (lambda m, _: prune_l1_unstructured(m, amount=AMOUNT), "prune", None),
    "random": (lambda m, _: prune_random_unstructured(m, amount=AMOUNT), "prune", None),
    "global": (lambda m, _: prune_l1_global(m, amount=AMOUNT), "emptying", None),
    "filters": (lambda m, _: prune_ln_structured(m, amount=AMOUNT), "structured", None),
    "2:4": (lambda m, _: prune_n_of_m(m, n=2, m=4), "structured", None),
    "shared": (lambda m, _: share_weights(m, num_clusters=CLUSTERS), "share", None),
    "recalibrated": (lambda m, p: recalibrate_batch_norm(m, p.inputs()[0]), "recalibrate", None),
    "folded": (lambda m, _: fold_batch_norm(m), "fold", None),
    "weights": (lambda m, _: quantize_weights(m, num_bits=8), "weights", of_bits(8)),
    "weights4": (lambda m, _: quantize_weights(m, num_bits=4), "weights", of_bits(4)),
    "dynamic": (lambda m, _: quantize_dynamic(m), "dynamic", DYNAMIC),
    "bfloat16": (lambda m, _: cast(m, torch.bfloat16), "cast", BFLOAT16),
    "float16": (lambda m, _: cast(m, torch.float16), "cast", FLOAT16),
    "static": (_static, "static", STATIC),
}
FLOAT = tuple(name for name, (_, _, rounding) in TECHNIQUES.items() if rounding is None)
ROUNDED = tuple(name for name in TECHNIQUES if name not in FLOAT)


def technique(program: Program, name: str, net: nn.Module | None = None) -> nn.Module:
    """Return a program's network after one technique, which may be refused; the input untouched."""
    net = program.build() if net is None else net
    function, refusal, _ = TECHNIQUES[name]
    with untouched(net):
        changed: nn.Module = attempt(refusal, program, lambda: function(net, program))
    return changed


def matrices(net: nn.Module) -> dict[str, Tensor]:
    """Return a network's matrices by name, a tied one once."""
    return {n: p.detach() for n, p in net.named_parameters() if p.ndim > 1}


def pruned(program: Program) -> None:
    """Asked is what is found: zeros of each layer, of all layers, and what sparsity() says."""
    before = matrices(program.build())
    for name in ("l1", "random", "global"):
        try:
            net = technique(program, name)
        except RefusedError:
            continue
        after, skipped = matrices(net), left_out(net)
        kept = {n: w for n, w in after.items() if n not in skipped}
        for n, weight in after.items():
            untouched_part = weight == before[n]
            assert bool((untouched_part | (weight == 0)).all()), f"{name}: {n} was changed"
        zeros = {n: int((w == 0).sum()) for n, w in kept.items()}
        had = {n: int((before[n] == 0).sum()) for n in kept}
        if name == "global":
            asked = max(round(AMOUNT * sum(w.numel() for w in kept.values())), sum(had.values()))
            assert sum(zeros.values()) == asked, f"{name}: {sum(zeros.values())}, asked {asked}"
        else:
            wanted = {n: max(round(AMOUNT * w.numel()), had[n]) for n, w in kept.items()}
            assert zeros == wanted, f"{name}: zeros {zeros}, asked {wanted}"
        share = sum(int((w == 0).sum()) for w in after.values()) / sum(
            w.numel() for w in after.values()
        )
        assert abs(sparsity(net) - share) < 1e-9, f"sparsity() {sparsity(net)}, found {share}"
        computes_its_weights(program, net, name)


def filters(program: Program) -> None:
    """Filters that go are whole, as many as asked, of convolutions only; none of the last layer."""
    net = technique(program, "filters")
    before, skipped = program.build(), left_out(net)
    for name, module in net.named_modules():
        if not isinstance(module, nn.modules.conv._ConvNd) or f"{name}.weight" in skipped:
            continue
        old: Any = before.get_submodule(name)
        after, had = filters_of(module), filters_of(old)
        zero, had = (after == 0).all(1), (had == 0).all(1)
        rest = after[~zero], filters_of(old)[~zero]
        assert torch.equal(*rest), f"{name}: a kept filter changed"
        count = int(zero.sum())
        asked = max(round(AMOUNT * len(zero)), int(had.sum()))
        assert count in (asked, int(had.sum())), f"{name}: {count} filters, asked {asked}"
    computes_its_weights(program, net, "filters")


def filters_of(layer: Any) -> Tensor:
    """Return a convolution's weight as rows, one per output channel."""
    weight: Tensor = layer.weight.detach()
    if layer.transposed:  # (inputs, outputs / groups, ...): each group has outputs of its own
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return weight.flatten(1)


def shared(program: Program) -> None:
    """Each layer takes at most so many values, and zeros stay."""
    net, before = technique(program, "shared"), matrices(program.build())
    for name, weight in matrices(net).items():
        if name not in left_out(net):
            assert len(weight.unique()) <= CLUSTERS, f"{name} takes {len(weight.unique())} values"
            assert bool((weight == 0)[before[name] == 0].all()), f"{name}: a zero went"
    computes_its_weights(program, net, "shared")


def computes_its_weights(program: Program, net: nn.Module, what: str) -> None:
    """Assert that a changed network computes what a fresh one with its weights does."""
    fresh = program.build()
    fresh.load_state_dict(net.state_dict())
    assert_equal(run(net, program.inputs()), run(fresh.eval(), program.inputs()), what)


def rounded(program: Program) -> None:
    """What rounds weights or values stays within its bound of float64."""
    for name in ("weights", "weights4", "dynamic", "bfloat16", "float16"):
        try:
            net = technique(program, name)
        except RefusedError:
            continue
        right = bounds(program.build(), program.inputs(), TECHNIQUES[name][2] or STATIC)
        for count in (4, 1, 0):
            if count == 4 or program.runs(count):
                x = tuple(t[:count] for t in program.inputs())
                found = run_where_there_are_kernels(net, x)
                assert_within(found, [(v[:count], b[:count]) for v, b in right], name)


def run_where_there_are_kernels(net: nn.Module, x: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs; RefusedError where torch has no kernel in bfloat16."""
    try:
        return run(net, x)
    except CompressionError as error:
        if "torch computes it in no torch.bfloat16" in str(error):
            raise RefusedError(str(error)) from error
        raise


def stored(program: Program, name: str | None = None) -> None:
    """A file gives back every tensor and every output, bit for bit."""
    net = program.build() if name is None else technique(program, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        with untouched(net):
            attempt(
                "save", program, lambda: save(net, path, entropy_coded=len(program.source) % 2 > 0)
            )
        build = program.build
        # What is folded is a network of its own, without norms.
        back = load(path, (lambda: fold_batch_norm(build())) if name == "folded" else build)
    wanted, found = net.state_dict(), back.state_dict()
    assert list(wanted) == list(found)
    for key, tensor in wanted.items():
        same = torch.equal(tensor, found[key]) and tensor.dtype == found[key].dtype
        assert same, f"{key} differs"
    wanted_outputs = run_where_there_are_kernels(net, program.inputs())
    assert_equal(run(back, program.inputs()), wanted_outputs, f"loaded {name}")


def paired(program: Program, first: str, second: str) -> None:
    """Two techniques compose: the second one's error is that of its own on the first one's network."""
    net = technique(program, first)
    if not any(isinstance(layer, LAYERS) for layer in net.modules()):
        raise RefusedError(f"{first} leaves no layer")
    both = technique(program, second, net)
    rounding = TECHNIQUES[second][2]
    x = program.inputs()
    found = run_where_there_are_kernels(both, x)
    if rounding is None:
        assert all(bool(torch.isfinite(t).all()) for t in found), f"{first}, then {second}"
    else:
        assert_within(found, bounds(net, x, rounding), f"{first}, then {second}")


def counted(program: Program) -> None:
    """Folding and pruning change no count of multiply-accumulates but those of what is not read."""
    x = program.inputs()[0]
    net = program.build()
    with untouched(net):
        wanted = count_macs(net, x)
    folded = attempt("fold", program, lambda: fold_batch_norm(net))
    assert count_macs(folded, x) <= wanted
    assert count_macs(technique(program, "l1"), x) == wanted
    assert count_macs(net, torch.cat([x, x])) == 2 * wanted


def trained(program: Program) -> None:
    """A step of training changes the weights and keeps them finite, the last batch of one included."""
    net = program.build()
    images, labels = program.inputs(5)[0], torch.arange(5) % 4
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    attempt("fit", program, lambda: fit(net, Split(images, labels, lambda t: t), ONE_STEP))
    after = dict(net.named_parameters())
    assert list(after) == list(before)
    assert all(bool(torch.isfinite(p).all()) for p in after.values())
    assert any(not torch.equal(p, before[name]) for name, p in after.items())


def taught(program: Program) -> None:
    """A step with a teacher changes the student's copy alone, by whichever loss of logits."""
    train = Split(program.inputs(5)[0], torch.arange(5) % 4, lambda t: t)
    student, teacher = program.build(), program.build().train()
    before = dict(student.named_parameters())
    for loss in (Standardized(), Decoupled(), Dist()):
        teach = partial(distill, student, teacher, train, ONE_STEP, distillation=loss)
        with untouched(student), untouched(teacher):
            after = dict(attempt("fit", program, teach).named_parameters())
        assert all(bool(torch.isfinite(p).all()) for p in after.values()), repr(loss)
        assert any(not torch.equal(p, before[name]) for name, p in after.items()), repr(loss)
