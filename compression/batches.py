"""Batches through a network whose outputs nobody asks for: its layers look at them as they pass."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.layers import failing_module
from compression.training import Labelled, input_batches


@torch.no_grad()
def run_batches(
    network: nn.Module, batches: Tensor | Iterable[Any] | Labelled, purpose: str
) -> None:
    """Call `network` on the inputs of `batches`, on its device and in its dtype.

    CompressionError for a batch that it cannot take, with the batch's number and the module that
    failed; `purpose` says what the batches are for.
    """
    like = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    for number, batch in enumerate(input_batches(batches, purpose), 1):
        try:
            network(batch.to(like.device, like.dtype if batch.is_floating_point() else None))
        except (CompressionError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the user's code does with a batch
            raise CompressionError(
                f"{purpose}: batch {number} of shape {tuple(batch.shape)} fails at "
                f"{failing_module(network, error)}: {error}"
            ) from error
