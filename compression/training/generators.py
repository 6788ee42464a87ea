"""The global generators that a network, an augmentation or a Dataset draws from."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from zlib import crc32

import numpy as np
import torch


@contextmanager
def restored_generators(device: torch.device | None = None) -> Iterator[None]:
    """Give torch's generators of the CPU and `device`, numpy's and random's back as they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    cuda = [device] if device is not None and device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)


def seed_generators(seed: int, key: object) -> None:
    """Seed torch's generator of the CPU, numpy's and random's by a seed and an example's key."""
    number = key if isinstance(key, int) and key >= 0 else crc32(repr(key).encode())
    mixed = np.random.SeedSequence([seed % 2**64, number]).generate_state(1, np.uint64)
    drawn = int(mixed[0])
    torch.default_generator.manual_seed(drawn)
    random.seed(drawn)
    np.random.seed(drawn % 2**32)
