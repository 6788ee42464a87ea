"""What a network's layers return within its forward, seen by hooks."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from torch import Tensor, nn

from compression.errors import CompressionError, UnsupportedTypeError


@contextmanager
def watching(
    network: nn.Module, names: Collection[str], who: str
) -> Iterator[dict[str, list[Any]]]:
    """Give what the layers of these dotted `names` returned in the latest forward of `network`.

    The hooks are gone afterwards. CompressionError for a name that the network, the `who` of the
    message, lacks.
    """
    layers = {name: _layer(network, name, who) for name in names}
    seen: dict[str, list[Any]] = {}

    # Plain functions, which a copy of the network shares: `fit` tries copies first.
    def forget(*_: Any) -> None:
        seen.clear()

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.setdefault(name, []).append(output)

        return keep

    handles = [network.register_forward_pre_hook(forget)]
    handles += [layer.register_forward_hook(keeper(name)) for name, layer in layers.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        seen.clear()


def outputs_of(seen: dict[str, list[Any]], name: str, who: str) -> Tensor:
    """Return what the layer `name` returned; CompressionError unless it was one tensor, once."""
    found = seen.get(name, [])
    if len(found) != 1:
        raise CompressionError(
            f"{name}: expected a layer that the {who}'s forward calls once, found {len(found)} calls; "
            "name another layer, or a block around it"
        )
    if not isinstance(found[0], Tensor):
        raise UnsupportedTypeError(
            f"{name}: expected a layer of the {who} that returns one tensor, found "
            f"{type(found[0]).__name__}"
        )
    return found[0]


def _layer(network: nn.Module, name: str, who: str) -> nn.Module:
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        names = [known for known, _ in network.named_modules() if known]
        like = get_close_matches(name, names, n=3) or names[:5]
        raise CompressionError(
            f"the {who}, {type(network).__name__}, has no layer {name!r}; it has "
            f"{', '.join(like) or 'none'}"
        ) from error
