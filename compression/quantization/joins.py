"""What a planner notes, and how it plans what reads several values, constants among them."""

from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.errors import UnsupportedTypeError
from compression.graph import number_nodes, place_of
from compression.quantization import operators as op
from compression.quantization import pointwise, rows
from compression.quantization.ends import containers
from compression.quantization.fallback import constants_of
from compression.quantization.interpolation import LINEAR
from compression.quantization.layer import LAYERS
from compression.quantization.plan import Attention, Item, Join, Norm, Plan, Product, Repeat
from compression.quantization.repeated import repeated_constants
from compression.quantization.streams import residual_streams
from compression.quantization.tail import tail_of


class Joins:
    """The items so far, and what they round; plans additions, products, concatenation and rows."""

    def __init__(
        self, folded: fx.GraphModule, *, fallback: bool, streams: bool, tail: bool
    ) -> None:
        """Plan nothing yet."""
        self.constants = constants_of(folded)
        self.held: dict[fx.Node, Tensor] = {}  # constants that have codes
        self.fallback = fallback
        self.layers = dict(folded.named_modules())
        self.numbers = number_nodes(folded.graph)
        self.tokens = repeated_constants(folded, self.constants, self.numbers)
        self.known = self._known(folded)  # what nothing computes
        self.items: list[Item] = []
        self.names: set[str] = set()
        self.rounded: dict[str, str] = {}
        self.codes: dict[fx.Node, str] = {}
        self.taken: dict[fx.Node, fx.Node] = {}  # a node -> the one that computes it too
        self.several: set[fx.Node] = set()  # nodes whose value is a tuple of tensors
        self.inner: set[fx.Node] = set()  # what is read of an operator in float, computed with it
        self.roots: dict[fx.Node, fx.Node] = {}  # a node -> the first of the same value
        self.ends = containers(folded.graph)  # what reads a value to return it
        self.stream: set[fx.Node] = self._residual_streams(folded) if streams else set()
        self.fine: set[fx.Node] = set()  # the values of it
        self.tail, self.before_tail = self._tail(folded) if tail else (set(), set())

    def plan(self) -> Plan:
        """Return what has been planned."""
        codes = self.codes | {node: node.name for node in self.held}
        return Plan(tuple(self.items), self.rounded, codes, self.held, self.fine, self.tail)

    def _known(self, folded: fx.GraphModule) -> set[fx.Node]:
        """Return constants, what stands in each image, and the sizes that only these ask for."""
        found = {*self.constants, *self.tokens}
        for node in reversed(folded.graph.nodes):
            if node in self.numbers and found.issuperset(node.users):
                found.add(node)
        return found

    def _residual_streams(self, folded: fx.GraphModule) -> set[fx.Node]:
        kinds = {n: self._kind(n) for n in folded.graph.nodes if n.op.startswith("call_")}

        def readers(node: fx.Node) -> list[fx.Node]:
            same = [n for n in node.users if n in kinds and self._has_values_of(n, kinds[n])]
            return [*node.users, *chain.from_iterable(map(readers, same))]

        return residual_streams(
            [n for n, kind in kinds.items() if op.addends_of(n, kind) is not None],
            [n for n, kind in kinds.items() if kind in op.CONCATENATE],
            [n for n, kind in kinds.items() if kind in (nn.LayerNorm, F.layer_norm)],
            readers,
        )

    def _tail(self, folded: fx.GraphModule) -> tuple[set[fx.Node], set[fx.Node]]:
        calls = (n for n in folded.graph.nodes if n.op.startswith("call_"))
        nodes = [n for n in calls if n not in self.known]
        return tail_of(
            filter(self._may_be_real, nodes),
            lambda node: (a for a in node.all_input_nodes if a not in self.numbers),
            {n for n in nodes if type(self._layer_of(n)) in LAYERS},
            self.ends | self.numbers,
        )

    def _may_be_real(self, node: fx.Node) -> bool:
        """Tell whether a node is a sum or a linear interpolation, or has the values of its source."""
        kind = self._kind(node)
        try:
            found = pointwise.interpolation_of(node, kind, self._layer_of(node), self.numbers)
            if found is not None:
                return found.mode in LINEAR
            return op.keeps_values(node, kind) or op.addends_of(node, kind) is not None
        except UnsupportedTypeError:  # told where it is planned, unless it stays in float
            return False

    def _has_values_of(self, node: fx.Node, kind: Any) -> bool:
        """Tell whether a node has the values of its source, or some of them, maybe elsewhere."""
        try:
            if op.keeps_values(node, kind):
                return True
            return not op.gives_several(kind) and op.moves_values(node, kind, self.numbers)
        except UnsupportedTypeError:  # told where it is planned, unless it stays in float
            return False

    def _layer_of(self, node: fx.Node) -> nn.Module | None:
        return self.layers[str(node.target)] if node.op == "call_module" else None

    def _kind(self, node: fx.Node) -> Any:
        return op.kind_of(node, self._layer_of(node))

    def _name(self, name: str) -> str:
        # One layer called twice has two ranges; a module has methods of its own, as double.
        while name in self.names or hasattr(nn.Module, name):
            name = f"{name}_again"
        self.names.add(name)
        return name

    def _round(self, node: fx.Node, end: fx.Node) -> None:
        """Have the module of `node` round its value, which is that of `end`."""
        self.rounded[end.name] = place_of(end)
        self.codes[node] = end.name

    def _repeat_constants(self, node: fx.Node) -> None:
        """Give codes to constants that stand in each image, where they are read as images are."""
        images = next(n for n in node.graph.nodes if n.op == "placeholder")
        for source in node.all_input_nodes if node not in self.numbers else ():
            if source in self.tokens and source not in self.codes and not self._is_held(source):
                self._round(source, source)
                name = self._name(f"{source.name}_repeated")
                self.items.append(Repeat(source, name, (images,), self.tokens[source]))

    def _is_held(self, token: fx.Node) -> bool:
        """Tell whether sums, products and concatenations alone read a constant, images first."""
        readers = [n for n in token.users if n not in self.known]
        return self.tokens[token].axis == 0 and all(map(self._joins, readers))

    def _joins(self, node: fx.Node) -> bool:
        kind = self._kind(node)
        joined = op.addends_of(node, kind) or pointwise.factors_of(node, kind)
        return bool(joined) or kind in op.CONCATENATE

    def _constant(self, node: Any) -> Tensor | None:
        """Return a constant as it stands beside images: one that has them first, or has none."""
        if node in self.tokens and node not in self.codes:
            return self.tokens[node].value
        return self.constants.get(node)

    def _hold(self, node: Any) -> bool:
        """Tell whether an operand has codes, or is a constant that gets some."""
        found = self._constant(node)
        if found is not None and found.is_floating_point() and found.numel():
            self.held[node] = found
            self.rounded[node.name] = place_of(node)
        return node in self.codes or node in self.held

    def _concatenate(self, node: fx.Node, kind: Any) -> None:
        operands = op.argument(node, 0, "tensors")
        dim = op.argument(node, 1, "dim", 0)
        if not isinstance(operands, list | tuple) or type(dim) is not int:
            raise op.unknown_operator(node, kind, " of other than a list of tensors along a number")
        for held in map(self._constant, operands):
            if held is not None and dim in (0, -held.ndim):
                raise op.unknown_operator(node, kind, " of constants and images along the batch")
        self._join(node, kind, list(operands), dim=dim)

    def _join(self, node: fx.Node, kind: Any, operands: list[Any], *, dim: int | None) -> None:
        self._check(node, kind, operands)
        self._round(node, self._take_clamp(node, node))
        self.fine.update(self.stream & {node})
        self.items.append(Join(node, self._name(node.name), tuple(operands), dim))

    def _multiply(self, node: fx.Node, kind: Any, factors: list[fx.Node]) -> None:
        self._check(node, kind, factors)
        self._round(node, self._take_clamp(node, node))
        self.items.append(Product(node, self._name(node.name), tuple(factors)))

    def _check(self, node: fx.Node, kind: Any, operands: list[Any]) -> None:
        """Refuse operands without codes; constants get some."""
        if not all(self._hold(operand) for operand in operands):
            raise op.unknown_operator(
                node, kind, " of sizes, or of constants that are no real numbers"
            )

    def _is_of_rows(self, node: fx.Node, layer: nn.Module | None, kind: Any) -> bool:
        """Plan LayerNorm or attention; tell whether `node` is one of them."""
        name = node.name if layer is None else str(node.target)
        if (norm := rows.norm_of(node, kind, layer, self.constants)) is not None:
            source: Any = op.argument(node, 0, "input")
            self._round(node, node)
            self.items.append(Norm(node, self._name(name), (source,), norm))
        elif (attended := rows.attention_of(node, kind, self.constants)) is not None:
            if not all(value in self.codes for value in attended.values):
                raise op.unknown_operator(node, kind, " of parameters or constants")
            self._round(node, node)
            self.items.append(Attention(node, self._name(name), attended.values, attended))
        else:
            return False
        return True

    def _take_clamp(self, node: fx.Node, end: fx.Node) -> fx.Node:
        """Return the clamp that alone uses `end`, computed with `node` from now on; or `end`.

        Codes saturate at the ends of their range, which holds 0: so must the clamp's.
        """
        user = self._next(end)[1]
        if user is None:
            return end
        bounds = op.clamp_bounds(user, self._kind(user), self._layer_of(user))
        if bounds is None or (bounds[0] or 0) > 0 or (bounds[1] or 0) < 0:
            return end
        self.taken[user] = node
        return user

    def _next(self, node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
        """Return what has the value of `node` after dropouts, and its only reader, None for others."""
        while len(node.users) == 1:
            (user,) = node.users
            if user.op == "output" or not op.keeps_values(user, self._kind(user)):
                return node, user
            node = user
        return node, None
