"""The training loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.nested import map_tensors
from compression.training.batches import Feed, batches
from compression.training.checks import IGNORED, check_labels, check_logits, training_device
from compression.training.norms import Synchronized
from compression.training.optimizers import optimizer_of
from compression.training.probe import Trial
from compression.training.ranks import Ranks, ranks_here
from compression.training.recipe import Recipe, has_bfloat16, rate_of, seed_of
from compression.training.run import Check, Loss, Run, scalar
from compression.training.sharding import is_sharded
from compression.training.sources import AnySplit, Labelled, as_split
from compression.training.split import Split


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one finished epoch tells; `state` is what `fit(resume_from=...)` goes on from.

    Of a sharded network it is the part that the process holds, for `write_parts`.
    """

    epoch: int
    epochs: int
    mean_loss: float
    seconds: float
    model: nn.Module
    state: Callable[[], dict[str, Any]]


@torch.enable_grad()
def fit(
    model: nn.Module,
    train: Labelled,
    recipe: Recipe,
    *,
    loss: Loss | None = None,
    penalty: Callable[[], Tensor] | None = None,
    after_step: Callable[[], None] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    resume_from: dict[str, Any] | Path | None = None,
    feed: Feed | None = None,
) -> None:
    """Train `model` in place on `train`; the same seed, machine and threads give the same weights.

    train        a Split, or what is read as it goes: a StreamedSplit, a Dataset (input, label), or a
                 DataLoader, whose order and batch size the recipe's seed and batch_size replace
    loss         (logits, labels, inputs) -> scalar; cross-entropy of logits (N, classes, ...) and
                 labels (N, ...) where it is None. What a network returns in a tuple, list, dict or
                 dataclass, only a loss of its own can take: it gets the whole for logits
    penalty      () -> scalar of the weights, which each step adds to the loss
    after_step   runs after every optimizer step
    on_epoch     runs after every epoch
    resume_from  what the state() of an EpochReport gave, to go on after its epoch; of a sharded
                 network also the folder of `write_parts`, read by any number of processes, sharded or
                 not. torch unpickles its files: take none from others
    feed         how the network takes its batches, where `feed_of` has found it out; a network that
                 `shard` has divided cannot be tried, and takes contiguous images without it

    On CUDA the draws are the same, and sums vary in their last bits. Images lie channels last where
    the network takes them so, and a last batch of one image joins the one before it where the network
    cannot train on it alone (`feed_of`). Raises CompressionError that names the place where network,
    batch and loss do not go together. It raises one with the epoch and the learning rate for a loss
    that is not finite: on CUDA some steps later, but before the epoch's report.

    Under an initialized torch.distributed group (torchrun) all processes call it alike, and train one
    network. Each draws the same batches and takes its part; gradients, batch norm's statistics and the
    reported loss are those of the whole batch, and `loss` is taken as a mean over its images. Dropout
    draws differently in each process. An error of one process ends all.

    >>> x = torch.randn(64, 4)
    >>> train = Split(x, (x[:, 0] > 0).long(), prepare=lambda x: x)
    >>> losses = []
    >>> recipe = Recipe(epochs=5, batch_size=16, learning_rate=0.5)
    >>> fit(nn.Linear(4, 2), train, recipe, on_epoch=lambda report: losses.append(report.mean_loss))
    >>> losses[-1] < losses[0]
    True
    """
    ranks, train = ranks_here(), as_split(train)
    device = training_device(model)
    ranks.agree(device, recipe.batch_size, images=len(train), recipe=recipe)
    with ranks.together():
        called = forward_of if loss is None else partial(forward_of, whole=True)
        look: Callable[[Any], None] | None = None
        if feed is None:
            feed, shape = _tried(model, train, recipe, device, called)
            if loss is None and shape:
                look = _checked(train, shape)
        goal = _penalized(loss or _cross_entropy(train, recipe, ranks), penalty)
        shares = [ranks.share(size) for size in feed.sizes(len(train), recipe.batch_size)]
        optimizer = optimizer_of(model, recipe)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_of(recipe, step / (len(shares) * recipe.epochs))
        )
        wrap = partial(ranks.wrapped, reaches_all=feed.reaches_all)
        forward = called(model, recipe, device, wrap=wrap)
        run = Run(model, forward, goal, optimizer, scheduler, after_step, Synchronized(ranks))
        for epoch in range(0 if resume_from is None else run.resume(resume_from), recipe.epochs):
            started = time.perf_counter()
            with (
                _seed_generators(seed_of(recipe, epoch), device, ranks),
                run.synchronized.within(model),
                closing(batches(train, recipe, epoch, device, feed, look, ranks)) as data,
            ):
                total = run.epoch(data, shares, Check(recipe, epoch, len(shares), device, ranks))
                mean_loss = ranks.sum(total).item() / len(train)
            if on_epoch is not None:
                seconds = ranks.longest(time.perf_counter() - started, device)
                state = partial(run.state, epoch)
                on_epoch(EpochReport(epoch, recipe.epochs, mean_loss, seconds, model, state))
        model.eval()


def _checked(train: AnySplit, shape: torch.Size) -> Callable[[Any], None] | None:
    """Refuse labels without a logit, or return what does where they are read batch by batch."""
    if not isinstance(train, Split):
        return partial(check_labels, logits=shape)
    check_labels(train.labels, shape)
    return None


def _tried(
    model: nn.Module, train: AnySplit, recipe: Recipe, device: torch.device, called: Any
) -> tuple[Feed, torch.Size]:
    """Return how the network can be fed, and its logits' shape; none where it is sharded."""
    if is_sharded(model):
        return Feed(torch.contiguous_format), torch.Size()
    return Trial(model, train, recipe, device, called).feed()


def feed_of(model: nn.Module, train: Labelled, recipe: Recipe) -> Feed:
    """Return how `fit` would feed `model`, which does not change, whatever its outputs are.

    Raises CompressionError with the network's own error where it cannot train by `recipe`.
    """
    whole = partial(forward_of, whole=True)
    with torch.enable_grad():
        return Trial(model, as_split(train), recipe, training_device(model), whole).feed()[0]


def _cross_entropy(train: AnySplit, recipe: Recipe, ranks: Ranks) -> Loss:
    smoothing = recipe.label_smoothing
    # The mean is one of the labels that count: each process may have another share of those.
    uneven = not ranks.alone and (
        not isinstance(train, Split) or bool((train.labels == IGNORED).any())
    )

    def loss(logits: Tensor, labels: Tensor, _: Tensor) -> Tensor:
        labels = labels if labels.is_floating_point() else labels.long()  # of any integers
        if not uneven or labels.is_floating_point():
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        images = torch.full((), len(labels), device=labels.device)
        counted, images = ranks.sum(torch.stack([(labels != IGNORED).sum(), images]))
        value = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum")
        return value * (images / len(labels) / counted)

    return loss


def loss_of(model: nn.Module, inputs: Tensor, labels: Any, loss: Loss | None = None) -> Tensor:
    """Return the loss of a batch as `fit` takes it, in float32: cross-entropy where it is None.

    Raises what `fit` raises of a batch, and the errors of the network and the loss as they are.
    """
    device = next(model.parameters()).device
    outputs = forward_of(model, _IN_FLOAT32, device, whole=loss is not None)(inputs)
    if loss is not None:
        return scalar(loss(outputs, labels, inputs))
    check_labels(labels, outputs.shape)
    return F.cross_entropy(outputs, labels if labels.is_floating_point() else labels.long())


_IN_FLOAT32 = Recipe(epochs=1, batch_size=1, learning_rate=1.0)


def _penalized(loss: Loss, penalty: Callable[[], Tensor] | None) -> Loss:
    if penalty is None:
        return loss
    return lambda logits, labels, inputs: loss(logits, labels, inputs) + penalty()


def forward_of(
    model: Callable[[Tensor], Any],
    recipe: Recipe,
    device: torch.device,
    *,
    whole: bool = False,
    wrap: Callable[[Any], Callable[[Tensor], Any]] = lambda network: network,
) -> Callable[[Tensor], Any]:
    """Return the model in training: compiled and in bfloat16 where the recipe asks; logits float32.

    UnsupportedTypeError for other than one tensor of logits, unless `whole`: then outputs of any
    structure are taken. What is compiled holds the model's own parameters: the state dict keeps its
    keys, and evaluation of the model itself stays eager. `wrap` gives the call of it.
    """
    compiled = recipe.compiled and device.type == "cuda"
    network = wrap(torch.compile(model, dynamic=False) if compiled else model)
    autocast = recipe.precision == "bfloat16" and has_bfloat16(device)

    def forward(inputs: Tensor) -> Any:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            outputs = network(inputs)
        if whole and not isinstance(outputs, Tensor):
            return map_tensors(outputs, _in_float32, "outputs")
        return check_logits(model, outputs).float()

    return forward


def _in_float32(tensor: Tensor) -> Tensor:
    """Return a tensor of real numbers in float32, another as it is."""
    return tensor.float() if tensor.is_floating_point() else tensor


@contextmanager
def _seed_generators(seed: int, device: torch.device, ranks: Ranks) -> Iterator[None]:
    """Seed the global generators that dropout draws from, and give them back as they were.

    Only the CPU's and the device's: torch.manual_seed would change those of every GPU.
    """
    seed += ranks.rank << 40  # other images drop other activations
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for card in cuda:
            with torch.cuda.device(card):
                torch.cuda.manual_seed(seed)
        yield
