"""Products of two values: matrices, and attention."""

from torch import fx

from compression.channels.values import Value
from compression.channels.walk import Walk, name_of

MATRICES = frozenset(["matmul", "bmm", "mm"])
ATTENTION = "scaled_dot_product_attention"


def product(walk: Walk, node: fx.Node) -> Value | None:
    """Return what a product of values gives; None for another operator."""
    name = name_of(node.target)
    if name in MATRICES and len(walk.inputs(node)) == 2:
        return _matrices(walk, node, *walk.inputs(node))
    if name == ATTENTION and len(walk.inputs(node)) == 3:
        return _attention(walk, node, *walk.inputs(node))
    return None


def _matrices(walk: Walk, node: fx.Node, first: Value, second: Value) -> Value:
    """Unite what is summed over; rows, columns and the batch keep their labels."""
    shape = walk.shape(node)
    if min(len(first.shape), len(second.shape)) < 2:
        walk.freeze(node, "a product with a vector", first, second)
        return Value(shape)
    ndim = len(shape)
    first, second = first.widened(ndim), second.widened(ndim)
    rows, columns = ndim - 2, ndim - 1
    if first.axis == columns or second.axis == rows:
        _sum_over(walk, node, first, second)
        walk.unite(node, first.along(columns), second.along(rows))
    kept = [v for v, summed in ((first, columns), (second, rows)) if v.axis not in (None, summed)]
    return _of_axes(walk, node, shape, kept)


def _sum_over(walk: Walk, node: fx.Node, first: Value, second: Value) -> None:
    """Let channels stay that are summed over though those of zeros may count."""
    if not (first.vanishes or second.vanishes):
        walk.freeze(
            node, "a sum over channels that are not 0 where their weights are", first, second
        )


def _of_axes(walk: Walk, node: fx.Node, shape: tuple[int, ...], kept: list[Value]) -> Value:
    """Return the value with the labels of what is multiplied, unless they lie along two axes."""
    if not kept:
        return Value(shape)
    first, last = kept[0], kept[-1]
    axis, labels = first.channels
    if axis != last.axis:
        walk.freeze(node, "its channels lie along two axes", *kept)
    elif first is not last:
        walk.unite(node, labels, last.channels[1])
    elif axis < len(shape) - 2:  # of the batch: the other factor must have it too, or 1
        others = [v.widened(len(shape)) for v in walk.inputs(node)]
        if any(v.axis != axis and v.shape[axis] > 1 for v in others):
            walk.freeze(node, "multiplied with channels that stay", first)
    return Value(shape, axis, labels, any(v.vanishes for v in kept))


def _attention(walk: Walk, node: fx.Node, query: Value, key: Value, value: Value) -> Value:
    """Heads go together; offsets of queries and keys only where the scale does not count them."""
    shape = walk.shape(node)
    last = len(shape) - 1
    if last in (query.axis, key.axis):
        _sum_over(walk, node, query, key)
        walk.unite(node, query.along(last), key.along(last))
        if node.kwargs.get("scale") is None:
            walk.freeze(node, "attention's scale counts its channels", query, key)
    heads = [v for v in (query, key, value) if v.axis not in (None, last)]
    together = len(heads) == 3 and len({(v.axis, v.shape[v.channels[0]]) for v in heads}) == 1
    together = together and heads[0].channels[0] < last - 1  # not those over which softmax sums
    if heads and not together:
        walk.freeze(node, "attention needs all of its heads", *heads)
    for other in heads[1:] if together else ():
        walk.unite(node, heads[0].channels[1], other.channels[1])
    if heads and value.axis == last:
        walk.freeze(node, "its channels lie along two axes", value, *heads)
    return Value(shape, value.axis, value.labels, value.vanishes)
