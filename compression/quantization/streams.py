"""Residual streams: sums that the next sums add to, and that LayerNorm reads between them.

    x += attention(norm(x)); x += mlp(norm(x)); ...

Such a sum grows from block to block, and a few of its channels and tokens are hundreds of times as
large as others (Sun et al. 2024, arXiv:2402.17762): 8 bits of the largest leave nothing of those,
while LayerNorm makes all of them as large. So what rounding leaves of a sum is kept beside its codes,
as codes that count 256ths of a step.
"""

from collections.abc import Callable, Iterable
from itertools import chain

from torch import fx

Readers = Callable[[fx.Node], list[fx.Node]]


def residual_streams(
    sums: Iterable[fx.Node],
    concatenations: Iterable[fx.Node],
    norms: Iterable[fx.Node],
    readers: Readers,
) -> set[fx.Node]:
    """Return the sums and concatenations whose rounding is kept.

    They are the sums that a LayerNorm and a sum read; the last sum of them, which a LayerNorm reads
    alone; and what the first of them is the sum or the concatenation of. `readers` tells who reads a
    node's value, dropouts left out.
    """
    sums, norms = list(sums), set(norms)
    joins = [*sums, *concatenations]
    read_by = {node: set(readers(node)) for node in joins}
    found = {s for s in sums if read_by[s] & norms and not read_by[s].isdisjoint(sums)}
    last = chain.from_iterable(read_by[s].intersection(sums) for s in found)
    found |= {s for s in last if read_by[s] & norms}
    left = list(found)
    while left:
        node = left.pop()
        first = [join for join in joins if node in read_by[join] and join not in found]
        found.update(first)
        left.extend(first)
    return found
