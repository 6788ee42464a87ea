"""Networks of which each process holds a part (FSDP2), and the state of their training."""

import warnings
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compression.errors import CheckpointError, CompressionError


def shard(model: nn.Module, device: torch.device | str) -> None:
    """Divide the parameters of `model` among the processes of the default group, in place.

    Each part of an nn.Sequential or nn.ModuleList that holds parameters comes together on its own,
    when it runs, and the rest as one: a device holds its part of the network, and a whole of the part
    that runs. From then on `fit` trains it by torch's `fully_shard` (FSDP2), and no technique copies
    it. Buffers stay whole. CompressionError without a process group.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise CompressionError(
            f"{type(model).__name__} can be sharded among the processes of a group only: start them "
            "by torchrun, and call torch.distributed.init_process_group"
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP2 takes no other
    blocks = [
        part
        for module in reversed([*model.modules()])  # inner ones first, as FSDP2 asks for
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for part in module
        if any(True for _ in part.parameters())
        and not isinstance(part, nn.Sequential | nn.ModuleList)
    ]
    for part in [*dict.fromkeys(blocks), model]:
        # The rest too, which torch would leave whole after a forward: after an evaluation an optimizer
        # or a file would take it for a network that is not sharded.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def is_sharded(model: Any) -> bool:
    """Tell whether a process holds a part of the network's parameters only."""
    if not isinstance(model, nn.Module) or not dist.is_available():
        return False
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a network, which all processes call together where it is sharded.

    Then it is whole on process 0, on the CPU, and the others get empty tensors.
    """
    from torch.distributed.tensor import DTensor

    def whole(value: Any) -> Any:
        if not isinstance(value, DTensor):
            return value
        full = value.full_tensor()
        return full.cpu() if dist.get_rank() == 0 else torch.empty(0)

    state = model.state_dict()
    return {name: whole(value) for name, value in state.items()} if is_sharded(model) else state


def parts_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return weights, and the optimizer's state by the names of parameters: of each the part held here.

    An optimizer that has taken no step gets a state first, as torch.distributed.checkpoint reads into
    one.
    """
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return {"model": model.state_dict(), "optimizer": get_optimizer_state_dict(model, optimizer)}


def write_parts(folder: Path, state: dict[str, Any]) -> None:
    """Write a state into one folder, each process of the group its part (torch.distributed.checkpoint).

    `fit(resume_from=folder)` reads what the state() of an EpochReport of a sharded network gave.
    CheckpointError, in all processes, where one of them cannot write.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_parts(Path(folder), {"model": nn.Linear(2, 2).state_dict()})
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['.metadata', '__0_0.distcp']
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        with _quiet():
            save(state, checkpoint_id=folder)
    except CheckpointException as error:  # which is no Exception
        raise CheckpointError(f"{folder}: not written, {_reason(error)}") from error


def read_parts(folder: Path, held: dict[str, Any]) -> None:
    """Read into a training's state, of `parts_of`, what torch.distributed.checkpoint wrote of one.

    All processes call it, however many have written. ValueError where that is none of this training.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict_loader import load

    names, moments = _trained(held), held["optimizer"]["state"]
    try:
        saved = FileSystemReader(folder).read_metadata().state_dict_metadata
        places = {key.rpartition(".")[0] for key in saved}
        for name in [*moments]:  # of a parameter that has had no gradient none was written
            if f"optimizer.state.{name}" not in places:
                del moments[name]
        _check_known(saved, held["model"])
        with _quiet():
            load(held, checkpoint_id=folder)
    except (Exception, CheckpointException) as error:  # of pickle, zip, files and shapes
        raise ValueError(f"{folder}: {_reason(error)}") from error
    if _trained(held) != names:
        raise ValueError(f"{folder}: other parameters were trained")


@contextmanager
def _quiet() -> Iterator[None]:
    """Let one process alone read and write without a warning that it is alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _check_known(saved: Iterable[str], names: Container[str]) -> None:
    """Refuse weights that the network does not have, which torch.distributed.checkpoint leaves out."""
    for key in saved:
        place, _, name = key.partition(".")
        if place == "model" and "_extra_state" not in name and name not in names:
            raise ValueError(f"{name} is none of the network's")


def _reason(error: BaseException) -> str:
    """Return in a line what went wrong, in the first process that is named."""
    for cause, _ in getattr(error, "failures", {}).values():
        error = cause
        break
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _trained(state: dict[str, Any]) -> list[Any]:
    return [group["params"] for group in state["optimizer"]["param_groups"]]


def divided(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return a whole state of a training, which every process holds, divided as `model` is."""
    held, moments = model.state_dict(), state["optimizer"]["state"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    places = [key for params in _trained(state) for key in params]
    like = dict(zip(places, parameters, strict=True))
    return {
        **state,
        "model": {name: _divided(t, held.get(name)) for name, t in state["model"].items()},
        "optimizer": {
            **state["optimizer"],
            "state": {
                key: {name: _divided(t, like[key]) for name, t in values.items()}
                for key, values in moments.items()
            },
        },
    }


def _divided(value: Any, like: Any) -> Any:
    """Return a whole tensor divided as `like` is; a part, and what has another shape, as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    if isinstance(value, DTensor):
        return value
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
