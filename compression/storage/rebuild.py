"""A file's content -> a network."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from compression.architectures import Architecture
from compression.errors import CheckpointError, CompressionError, UnsupportedTypeError
from compression.storage.container import Content, Entries
from compression.storage.encoding import claimed_kind, decode, kind_of, same_bits
from compression.storage.joined import joined_kinds, split
from compression.storage.structure import restructure
from compression.storage.unstored import check_unstored, read_versions

State = dict[str, Tensor]
_MOST_TIMES_SMALLER = 1000  # a file than its network: what a hostile one can have allocated
_SHOWN = 3  # names that an error lists


def rebuild(
    path: Path, content: Content, about: dict[str, Any], network: nn.Module | None
) -> nn.Module:
    """Return the model that a file's content describes, in `network` or in one that it names."""
    try:
        model = _build(path, content, about, network)
        state = _state(path, model, content.entries, about)
    except CheckpointError as error:
        if content.intact:
            raise
        raise damage_error(path, f"; {error}") from error
    if not content.intact:
        raise damage_error(path, " in its header")
    fill(path, model, state, read_versions(path, about))
    check_unstored(path, model, about)
    return model.eval()


def damage_error(path: Path, where: str) -> CheckpointError:
    """Return what to raise for a file whose hash is not right; `where` follows the word damaged."""
    return CheckpointError(
        f"{path}: damaged{where}, its SHA-256 does not match; copy the file again"
    )


def _build(
    path: Path, content: Content, about: dict[str, Any], network: nn.Module | None
) -> nn.Module:
    """Return a network of the file's structure, whose values are of no account."""
    if network is None:
        network = release(_architecture_of(path, content, about.get("architecture"))())
    structure = about.get("structure")
    if structure is None:
        return network
    try:
        if not isinstance(structure, dict):
            raise TypeError("expected an object")
        return restructure(network, structure)
    except (CompressionError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path}: its structure {structure} does not fit the network ({error})"
        ) from error


def _architecture_of(path: Path, content: Content, named: Any) -> Architecture:
    """Return the architecture that a file names, unless it is far larger than the file."""
    if named is None:
        raise CheckpointError(f"{path}: names no architecture; pass a factory of the network")
    try:
        architecture = Architecture(**named)
    except (CompressionError, TypeError) as error:
        raise CheckpointError(f"{path}: its architecture {named}: {error}") from error
    needed = architecture.about_bytes()
    stored = content.header_bytes + sum(tensor.nbytes for tensor in content.entries.values())
    if needed > _MOST_TIMES_SMALLER * stored:
        raise CheckpointError(
            f"{path}: {stored} bytes name {architecture}, which takes about {needed}; pass a factory "
            "if you trust the file"
        )
    return architecture


def _state(path: Path, model: nn.Module, entries: Entries, about: dict[str, Any]) -> State:
    """Return the state dict, in which tied names hold one and the same tensor.

    Nothing is decoded before what the file claims is what the network holds.
    """
    tensors, joined = about["tensors"], about.get("joined", {})
    aliases = {
        n: d.get("of")
        for n, d in tensors.items()
        if isinstance(d, dict) and d.get("encoding") == "alias"
    }
    own = {n: d for n, d in tensors.items() if n not in aliases}
    try:
        kinds = {n: claimed_kind(n, d, entries) for n, d in own.items()}
        small = joined_kinds(joined)
        twice = sorted(small.keys() & tensors)
        if twice:
            raise CheckpointError(f"tensors that are described twice: {_few(twice)}")
        kinds |= small
        lost = [n for n, of in aliases.items() if not isinstance(of, str) or of not in kinds]
        if lost:
            raise CheckpointError(f"aliases of tensors that are not there: {_few(lost)}")
        compare(model, kinds | {n: kinds[of] for n, of in aliases.items()})
        release(model)
        state = split(joined, entries) | {n: decode(n, d, entries) for n, d in own.items()}
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if entries:
        raise CheckpointError(f"{path}: entries that belong to no tensor: {_few(sorted(entries))}")
    return state | {n: state[of] for n, of in aliases.items()}


def compare(model: nn.Module, kinds: dict[str, str]) -> None:
    """Raise CheckpointError where a name, shape or dtype differs from the network's."""
    expected = {name: _kind(tensor) for name, tensor in model.state_dict().items()}
    missing, extra = sorted(expected.keys() - kinds), sorted(kinds.keys() - expected)
    if missing or extra:
        raise CheckpointError(
            f"of another architecture; expected but missing: {_few(missing)}; found but "
            f"not expected: {_few(extra)}"
        )
    wrong = [
        f"{name} expected {want}, found {kinds[name]}"
        for name, want in expected.items()
        if want != kinds[name]
    ]
    if wrong:
        raise CheckpointError(
            f"of another architecture or type; convert the weights first: {_few(wrong, '; ')}"
        )


def make_network(factory: Any) -> nn.Module:
    """Return the network that `factory` makes; CompressionError where it makes none to fill."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise CompressionError(
            "expected a function that returns a fresh network, as `lambda: Net()`, found "
            f"{type(factory).__name__}"
        )
    network = factory()
    if not isinstance(network, nn.Module):
        raise CompressionError(
            f"the factory returned {type(network).__name__}, expected a network (nn.Module)"
        )
    for name, tensor in network.state_dict(keep_vars=True).items():
        if is_lazy(tensor):
            raise UnsupportedTypeError(
                f"{name}: its shape is not known before the first call (a lazy layer); let the "
                "factory call the network once"
            )
    return network


def release(model: nn.Module) -> nn.Module:
    """Free the values of a fresh network, which become zeros, and return it.

    So that its values and the file's never stand in memory at once.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        if isinstance(tensor, Tensor) and not name.endswith("_extra_state"):
            tensor.data = tensor.new_zeros(()).expand(tensor.shape)
    return model


def fill(path: Path, model: nn.Module, state: dict[str, Tensor], versions: dict[str, Any]) -> None:
    """Give `model` the tensors of `state`, tied where they are one and the same tensor.

    Assigned rather than copied in: copying into a network that ties what the file does not would
    let the last name win, and copying into an expanded buffer is an error. `versions` are what the
    state dict notes of its modules, for the modules' own loading; those not in it are up to date.
    """
    own: dict[int, Tensor] = {}
    memory: set[int] = set()
    for tensor in state.values():
        if id(tensor) not in own:
            place = tensor.untyped_storage().data_ptr()
            own[id(tensor)] = _in_own_memory(tensor, shared=place in memory)
            memory.add(place)
    parameters: dict[int, nn.Parameter] = {}
    assigned: OrderedDict[str, Tensor] = OrderedDict()
    wanted = model.state_dict(keep_vars=True)
    for name, want in wanted.items():
        key = id(state[name])
        assigned[name] = own[key]
        if isinstance(want, nn.Parameter):
            parameter = nn.Parameter(own[key], requires_grad=want.requires_grad)
            assigned[name] = parameters.setdefault(key, parameter)
    assigned._metadata = {**wanted._metadata, **versions}  # type: ignore[attr-defined]
    try:
        model.load_state_dict(assigned, strict=True, assign=True)
    except Exception as error:  # modules have hooks of their own, which raise anything
        raise CheckpointError(
            f"{path}: the network's own load_state_dict refuses the weights: {error}"
        ) from error
    lost = [
        n for n, tensor in model.state_dict().items() if not same_bits(tensor, own[id(state[n])])
    ]
    if lost:
        raise CheckpointError(
            f"{path}: the network keeps other values than the file's in {_few(lost)}; does it share "
            "a layer that the file has twice?"
        )


def _in_own_memory(tensor: Tensor, *, shared: bool) -> Tensor:
    """Return the tensor packed and in memory of its own, which a slice of a file's is not."""
    if shared or not tensor.is_contiguous() or tensor.untyped_storage().nbytes() != tensor.nbytes:
        return tensor.detach().clone(memory_format=torch.contiguous_format)
    return tensor.detach()


def _kind(tensor: Any) -> str:
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    return kind_of(tensor)


def _few(names: list[str], between: str = ", ") -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (between.join(names[:_SHOWN]) + more) if names else "none"
