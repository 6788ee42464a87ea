"""Which values of a lowered network share memory, and until when each is read."""

from torch import fx

from compression.integer.shapes import is_move


class Aliases:
    """What moves numbers may return a view: it shares the memory of its input."""

    def __init__(self, network: fx.GraphModule) -> None:
        """Find the memory of every value and its last reader."""
        self._order = {node: i for i, node in enumerate(network.graph.nodes)}
        self._owners: dict[fx.Node, frozenset[fx.Node]] = {}
        self._last: dict[fx.Node, int] = {}
        for node, i in self._order.items():
            inputs = [self._owners[a] for a in node.all_input_nodes]
            shared = frozenset[fx.Node]().union(*inputs)
            self._owners[node] = shared if is_move(network, node) else frozenset([node])
            for owner in shared:
                self._last[owner] = i

    def needed(self, value: fx.Node, reader: fx.Node) -> bool:
        """Tell whether the memory of `value` is the user's, or is read otherwise than as this operand.

        `reader` is the node that wants to write it.
        """
        others = [a for a in reader.args if isinstance(a, fx.Node)]
        others.remove(value)
        owners = self._owners[value]
        return (
            any(owner.op == "placeholder" for owner in owners)
            or any(self._last[owner] > self._order[reader] for owner in owners)
            or any(owners & self._owners[other] for other in others)
        )
