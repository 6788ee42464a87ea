"""A compressed model <-> its file."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compression.architectures import Architecture
from compression.atomic import writable, write_atomically
from compression.errors import CheckpointError, CompressionError
from compression.layers import check_model, check_module
from compression.storage.container import Entries, check_readable, read, write
from compression.storage.encoding import About, check_storable, encode, memory_of
from compression.storage.joined import is_small, join
from compression.storage.proof import check_architecture, check_loads, check_structure
from compression.storage.rebuild import damage_error, make_network, rebuild, release
from compression.storage.structure import structure_of
from compression.storage.unstored import note_unstored, versions_of

_PARTS = {"mask": "index", "gaps": "index", "codebook": "codebook"}


def save(
    model: nn.Module,
    path: Path | str,
    *,
    entropy_coded: bool = False,
    architecture: Architecture | None = None,
) -> int:
    """Write `model` to one file, whole or not at all, and return its size in bytes.

    The same model gives the same bytes. `entropy_coded` makes the file smaller and slower to write
    and read; a file that names its `architecture` loads without a factory. Raises CompressionError
    for a tensor that is not finite or has no plain bytes, for a network that would not come back
    (a compressed one inside another, one that does not load its own state dict) and for an
    architecture that is not the model's. Raises CheckpointError for a file that cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "model.safetensors"
    ...     save(nn.Linear(8, 4), path) == path.stat().st_size
    True
    """
    check_module(model)
    writable(path)
    check_model(model)
    structure = structure_of(model)
    if architecture is not None:
        check_architecture(model, structure, architecture)
    else:
        check_structure(model, structure)
    check_loads(model)
    bits = structure["num_bits"] if structure else {}
    tensors, entries, small = _encode_all(model, bits, entropy_coded=entropy_coded)
    about: dict[str, Any] = {"structure": structure, "tensors": tensors}
    beside = {"versions": versions_of(model), "unstored": note_unstored(model)}
    about |= {key: noted for key, noted in beside.items() if noted}
    if architecture is not None:
        about["architecture"] = asdict(architecture)
    if small:
        about["joined"], added = join(small)
        _add(entries, "small tensors", added)
    sizes: list[int] = []
    write_atomically(path, lambda file: sizes.append(write(file, entries, about)))
    return sizes[0]


def _encode_all(
    model: nn.Module, bits: dict[str, int], *, entropy_coded: bool
) -> tuple[dict[str, About], Entries, dict[str, Tensor]]:
    """Return descriptions of tensors by name, their entries, and the small tensors yet to be joined."""
    tensors: dict[str, About] = {}
    entries: Entries = {}
    small: dict[str, Tensor] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        check_storable(name, tensor)
        first = stored.setdefault(memory_of(name, tensor), name)
        if first != name:
            tensors[name] = {"encoding": "alias", "of": first}
        elif entropy_coded and is_small(tensor):
            small[name] = tensor
        else:
            tensors[name], added = encode(
                name, tensor, num_bits=bits.get(name), entropy_coded=entropy_coded
            )
            _add(entries, name, added)
    return tensors, entries, small


def _add(entries: Entries, name: str, added: Entries) -> None:
    if added.keys() & entries.keys():
        raise CompressionError(f"{name}: the file already has an entry of this name")
    entries.update(added)


def load(path: Path | str, factory: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Return the model saved at `path`, bit for bit, in eval mode on the CPU.

    `factory` returns a fresh float network of the same architecture, and is not needed where the
    file names one; what was tied in the saved model is tied, and nothing else. Raises
    CheckpointError for a file that is missing, damaged, of another format or architecture, and for a
    network whose buffers that are not persistent are other than the saved one's.

    >>> import tempfile
    >>> model = nn.Linear(8, 4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save(model, Path(folder) / "model.safetensors")
    ...     again = load(Path(folder) / "model.safetensors", lambda: nn.Linear(8, 4))
    >>> bool((again.weight == model.weight).all())
    True
    """
    path = check_readable(path)
    network = None if factory is None else release(make_network(factory))
    content = read(path)
    if content.about is None:
        raise CheckpointError(f"{path}: plain safetensors, not a file of ours; use load_checkpoint")
    return rebuild(path, content, content.about, network)


def contents(path: Path | str) -> dict[str, int]:
    """Return the file's bytes by what they are; their sum is its size.

    "values" are numbers, codes and indices into codebooks, "index" tells where the values stand,
    "codebook" and "metadata" (names, shapes, checksums) are the rest. CheckpointError for a file that
    is missing, damaged or of another format.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size = save(nn.Linear(8, 4), Path(folder) / "model.safetensors")
    ...     parts = contents(Path(folder) / "model.safetensors")
    >>> parts["values"], sum(parts.values()) == size  # 8 x 4 + 4 float32
    (144, True)
    """
    path = check_readable(path)
    content = read(path)
    if not content.intact:
        raise damage_error(path, "")
    found = {"values": 0, "index": 0, "codebook": 0, "metadata": content.header_bytes}
    names = {} if content.about is None else content.about["tensors"]
    for name, tensor in content.entries.items():
        _, _, stream = name.rpartition("#")
        part = "values" if name in names or content.about is None else _PARTS.get(stream, "values")
        found[part] += tensor.numel() * tensor.element_size()
    return found
