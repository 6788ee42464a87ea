"""How a network can be fed, found out on a copy of it before the first step."""

import copy
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.nested import tensors_in
from compression.training.batches import Feed, make_inputs
from compression.training.checks import describe, named_errors
from compression.training.generators import restored_generators
from compression.training.ranks import ranks_here
from compression.training.recipe import Recipe, seed_of
from compression.training.split import Split
from compression.training.streamed import StreamedSplit

FORMATS = (torch.channels_last, torch.contiguous_format)
"""The fastest first; a network whose forward flattens by view needs the second."""


Forward = Callable[[Callable[[Tensor], Any], Recipe, torch.device], Callable[[Tensor], Any]]
"""(network, recipe, device) -> the network as it is called in training."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A network, and how it is to be trained: tried on copies, so that it stays, and every draw."""

    model: nn.Module
    train: Split | StreamedSplit
    recipe: Recipe
    device: torch.device
    forward: Forward

    def feed(self) -> tuple[Feed, torch.Size]:
        """Return how the network can be fed, and the shape of a batch's logits, or first output.

        A first batch of each size, or one process's part of it, goes forward and back: images channels
        last where the network takes them, else contiguous. Where the last batch would hold one image
        that the network cannot train on (batch norm over one value), batches hold at least two.
        Raises CompressionError with the network's own error where neither goes.
        """
        count = ranks_here().most(min(self.recipe.batch_size, len(self.train)))
        images = self._images(count)
        for memory_format in FORMATS:
            feed = Feed(memory_format)
            try:
                shape, reaches_all = self._outcome(feed, images)
            except CompressionError:
                if memory_format is not FORMATS[-1]:
                    continue
                if count == 1:
                    self._refuse_one(feed)
                raise
            if count > 1 and len(self.train) % self.recipe.batch_size == 1:
                feed = replace(feed, fewest=self._fewest(feed, images[:1], shape))
            return replace(feed, reaches_all=reaches_all), shape
        raise AssertionError("FORMATS is empty")

    def _images(self, count: int) -> Tensor:
        # Twice the first image where the split holds one: a batch of two like any other.
        index = torch.arange(count, device=self.train.device) % len(self.train)
        return self.train.at(index, seed=seed_of(self.recipe, 0))[0]

    def _fewest(self, feed: Feed, image: Tensor, whole: torch.Size) -> int:
        try:
            one, _ = self._outcome(feed, image)
        except CompressionError:
            return 2
        return 1 if len(one) == len(whole) and one[1:] == whole[1:] else 2

    def _refuse_one(self, feed: Feed) -> None:
        """Raise where two images go and one does not; return where one image is not to blame."""
        try:
            self._outcome(feed, self._images(2))
        except CompressionError:
            return
        remedy = "set the recipe's batch_size to 2 or more"
        raise CompressionError(
            f"{type(self.model).__name__} cannot be trained on a batch of one image, as batch norm "
            f"cannot on one value per channel; "
            f"{remedy if len(self.train) > 1 else 'pass more images'}"
        )

    def _outcome(self, feed: Feed, images: Tensor) -> tuple[torch.Size, bool]:
        """Return the logits' shape for these images, and whether they give all a gradient.

        Raises at the first size that fails.
        """
        outcome, seed = (torch.Size(), False), seed_of(self.recipe, 0)
        for size in (*dict.fromkeys(self.recipe.coarse_sizes), None):
            generator = torch.Generator(images.device).manual_seed(seed)
            with restored_generators(self.device):
                torch.default_generator.manual_seed(seed)
                inputs = make_inputs(self.train, self.recipe, images, size, generator, self.device)
                try:
                    # A traced network prints its own code beside an error, which may be expected.
                    with redirect_stderr(StringIO()):
                        outcome = self._step(feed.lay_out(inputs))
                except CompressionError as error:
                    if size is None:
                        raise
                    raise CompressionError(
                        f"{error}; if images of {size} pixels are too small for it, leave the "
                        "recipe's coarse_sizes out"
                    ) from error
        return outcome

    def _step(self, inputs: Tensor) -> tuple[torch.Size, bool]:
        spare, network = _spare(self.model)
        what = f"the network cannot train on a batch of inputs {describe(inputs)}"
        with named_errors(spare, what):
            forward = self.forward(network, replace(self.recipe, compiled=False), inputs.device)
            outputs = list(tensors_in(forward(inputs)))
            total = [output.sum() for output in outputs if output.requires_grad]
            if total:
                torch.stack(total).sum().backward()  # type: ignore[no-untyped-call]
        trained = [p for p in spare.parameters() if p.requires_grad]
        reaches_all = len(outputs) == 1 and all(p.grad is not None for p in trained)
        return (outputs[0].shape if outputs else torch.Size()), reaches_all


def _spare(model: nn.Module) -> tuple[nn.Module, Callable[[Tensor], Any]]:
    """Return a network to spoil, a copy of `model` in training mode, and the call of it."""
    try:
        copied = copy.deepcopy(model).train()
        copied.zero_grad()
    except Exception:  # a weight that torch.nn.utils.prune computes, a lock, an open file
        modes = [(module, module.training) for module in model.modules()]
        tensors = {
            name: tensor.detach().clone().requires_grad_(tensor.requires_grad)
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        }

        def call(inputs: Tensor) -> Any:
            try:
                return torch.func.functional_call(model.train(), tensors, (inputs,))
            finally:
                for module, training in modes:
                    module.training = training

        return model, call
    return copied, copied
