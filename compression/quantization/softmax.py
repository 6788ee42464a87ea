"""Attention that a forward writes out: a product of queries and keys, a softmax, and a product."""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from compression.quantization.operators import ADD, argument, is_one_of, keeps_values, kind_of

_MATMULS = (operator.matmul, torch.matmul, "matmul", torch.bmm, "bmm")
_SOFTMAXES = (F.softmax, torch.softmax, "softmax")
_SCALINGS: dict[Any, str] = {
    operator.mul: "mul", torch.mul: "mul", "mul": "mul",
    operator.truediv: "div", torch.div: "div", "div": "div",
}  # fmt: skip
Constants = dict[fx.Node, Tensor]


@dataclass(frozen=True, slots=True)
class Written:
    """What attends to what; keys are (..., channels, tokens) where they are `transposed`.

    Each image has so many `windows`, which follow one another along the first axis, where what is added
    differs from window to window.
    """

    query: fx.Node
    key: fx.Node
    value: fx.Node
    transposed: bool
    scale: float
    addends: tuple[fx.Node, ...]
    windows: int | None


def written_attention(
    folded: fx.GraphModule, node: fx.Node, constants: Constants
) -> Written | None:
    """Return what a product that reads a softmax attends to; None for another node.

    None, too, where a value between is read elsewhere, or where what is added is no constant.
    """
    product = _matmul(node, "ik,kj->ij")
    if product is None or product[0] in constants or product[1] in constants:
        return None
    modules = dict(folded.named_modules())
    scores = _softmaxed(product[0], modules)
    if scores is None:
        return None
    scores, addends = _bare(scores, constants)
    windows = _windows(scores, constants)
    if windows is not None:
        scores, more = _bare(windows[0], constants)
        addends += windows[1] + more
    scale, scores = _unscaled(scores)
    straight, transposed = _matmul(scores, "ik,jk->ij"), _matmul(scores, "ik,kj->ij")
    both = straight or transposed
    if both is None or len(scores.users) != 1 or scale <= 0:
        return None
    factor, query = _unscaled(both[0])
    other, key = _unscaled(both[1])
    if factor * other <= 0 or query in constants or key in constants:
        return None
    whole = scale * factor * other
    count = None if windows is None else windows[2]
    return Written(query, key, product[1], straight is None, whole, tuple(addends), count)


def _matmul(node: fx.Node, form: str) -> tuple[fx.Node, fx.Node] | None:
    """Return the two tensors of a product of matrices, of its `form` in Einstein's notation."""
    kind = kind_of(node, None)
    if is_one_of(kind, _MATMULS):
        pair = argument(node, 0, "input"), argument(node, 1, "other", node.kwargs.get("mat2"))
        plain = form == "ik,kj->ij" and len(node.all_input_nodes) == 2
        return pair if plain else None
    if kind is not torch.functional.einsum or len(node.args) != 3:
        return None
    text, first, second = node.args
    if not isinstance(text, str) or "." in text or not _is_product(text.replace(" ", ""), form):
        return None
    return first, second  # type: ignore[return-value]


def _is_product(equation: str, form: str) -> bool:
    """Tell whether an equation is a product of batches of matrices of this form."""
    parts, wanted = (e.replace("->", ",").split(",") for e in (equation, form))
    if len(parts) != 3 or any(len(p) < 2 or len(set(p)) != len(p) for p in parts):
        return False
    meant = dict(zip("".join(wanted), "".join(p[-2:] for p in parts), strict=True))
    matrices = ["".join(meant[letter] for letter in w) for w in wanted]
    return (
        len({p[:-2] for p in parts}) == 1
        and [p[-2:] for p in parts] == matrices
        and len(set(meant.values())) == len(meant)
    )


def _softmaxed(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """Return what the softmax over the last dimension reads that `node` is, after a dropout at most."""
    while len(node.users) == 1:
        layer = modules.get(str(node.target)) if node.op == "call_module" else None
        kind = kind_of(node, layer)
        if isinstance(layer, nn.Softmax) or is_one_of(kind, _SOFTMAXES):
            dim = layer.dim if isinstance(layer, nn.Softmax) else argument(node, 1, "dim")
            told = argument(node, 3 if kind is F.softmax else 2, "dtype")
            source = node.all_input_nodes[0]
            last = dim == -1 or (dim == 2 and is_one_of(kind_of(source, None), (torch.bmm, "bmm")))
            fits = last and told in (None, torch.float32) and len(source.users) == 1
            return source if fits else None
        if not node.op.startswith("call") or not keeps_values(node, kind):
            return None
        node = node.all_input_nodes[0]
    return None


def _bare(scores: fx.Node, constants: Constants) -> tuple[fx.Node, list[fx.Node]]:
    """Return scores without the constants that are added to them, and these."""
    addends: list[fx.Node] = []
    while (pair := _constant_addend(scores, constants)) is not None and len(scores.users) == 1:
        scores, addend = pair
        addends.append(addend)
    return scores, addends


def _windows(scores: fx.Node, constants: Constants) -> tuple[fx.Node, list[fx.Node], int] | None:
    """Return scores, constants that are added for each window, and how many windows an image has.

    (images windows, heads, ...) are seen as (images, windows, heads, ...), and back. None for others.
    """
    together = _viewed(scores)
    if together is None:
        return None
    apart, addends = _bare(scores.all_input_nodes[0], constants)
    sizes = _viewed(apart)
    if sizes is None or len(sizes) != len(together) + 1 or len(apart.users) != 1:
        return None
    whole = sizes[0] == together[0] == -1 and sizes[2:] == together[1:] and sizes[1] > 0
    same = all(constants[a].ndim < len(sizes) or len(constants[a]) == 1 for a in addends)
    return (apart.all_input_nodes[0], addends, sizes[1]) if whole and same else None


def _viewed(node: fx.Node) -> list[int] | None:
    """Return the sizes, plain numbers, that a value is seen in, which nothing else reads."""
    if node.target not in ("view", "reshape") or len(node.users) != 1:
        return None
    sizes: Any = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:]
    return list(sizes) if all(type(size) is int for size in sizes) else None


def _constant_addend(node: fx.Node, constants: Constants) -> tuple[fx.Node, fx.Node] | None:
    """Return what a constant is added to, and the constant."""
    if not is_one_of(kind_of(node, None), ADD) or argument(node, 2, "alpha", 1) != 1:
        return None
    pair = [argument(node, 0, "input"), argument(node, 1, "other")]
    held = [a for a in pair if a in constants]
    others = [a for a in pair if isinstance(a, fx.Node) and a not in constants]
    return (others[0], held[0]) if len(held) == len(others) == 1 else None


def _unscaled(node: fx.Node) -> tuple[float, fx.Node]:
    """Return the number that a value alone is multiplied by, and the value; 1 where by none."""
    factor = 1.0
    while len(node.users) == 1 and is_one_of(kind_of(node, None), _SCALINGS):
        name = next(v for k, v in _SCALINGS.items() if is_one_of(kind_of(node, None), [k]))
        operands = [argument(node, 0, "input"), argument(node, 1, "other")]
        numbers = [a for a in operands if type(a) in (int, float)]
        if len(numbers) != 1 or not isinstance(
            operands[0] if name == "div" else True, fx.Node | bool
        ):
            break
        number = float(numbers[0])
        if number == 0:
            break
        factor = factor / number if name == "div" else factor * number
        node = node.all_input_nodes[0]
    return factor, node
