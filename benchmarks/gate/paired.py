"""Is one of two lists of scores, of the same examples, lower beyond chance?"""

import numpy as np
from torch import Tensor

FLIPS = 20_000
_AT_ONCE = 2**24
"""Signs that are drawn at a time."""


def chance_of_loss(lost: Tensor) -> float:
    """Return how likely a mean loss as large as that of `lost` (N,) is where signs are chance.

    The one-sided sign-flip test (Fisher 1935): where neither list is better, each difference is as
    likely with the other sign. It is by 20,000 draws of fixed seed; of differences of 1 it is
    McNemar's test. 1 where nothing was lost.

    >>> chance_of_loss(Tensor([0.5, 0.5, 0.5])) > 0.1  # three coins on one side
    True
    """
    differences = lost.double().numpy()
    differences = differences[differences != 0]
    total = differences.sum()
    if total <= 0:
        return 1.0
    generator = np.random.default_rng(0)
    scaled, least = (differences / np.abs(differences).max()).astype(np.float32), 0
    limit = scaled.sum(dtype=np.float64) * (1 - 1e-6)
    rows = max(1, _AT_ONCE // len(scaled))
    for start in range(0, FLIPS, rows):
        count = min(rows, FLIPS - start)
        bits = generator.integers(0, 256, (count, -(-len(scaled) // 8)), np.uint8)
        signs = np.unpackbits(bits, axis=1, count=len(scaled)).astype(np.float32)
        least += int(((2 * signs - 1) @ scaled >= limit).sum())
    return (least + 1) / (FLIPS + 1)
