"""Networks of which each process holds a part (FSDP2), and their state as a whole."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compression.errors import CompressionError
from compression.nested import map_tensors


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
        fully_shard(part, mesh=mesh)


def is_sharded(model: Any) -> bool:
    """Tell whether a process holds a part of the network's parameters only."""
    if not isinstance(model, nn.Module) or not dist.is_available():
        return False
    return any(hasattr(parameter, "full_tensor") for parameter in model.parameters())


def whole_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state whose sharded tensors are whole, on the CPU; on process 0, others get empty ones.

    All processes must call it. A state without sharded tensors is returned as it is.
    """
    from torch.distributed.tensor import DTensor

    def gather(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, DTensor):
            return tensor
        full = tensor.full_tensor()
        return full.cpu() if dist.get_rank() == 0 else torch.empty(0)

    gathered: dict[str, Any] = map_tensors(state, gather, "state")
    return gathered


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a network, whole on process 0 where it is sharded."""
    state = model.state_dict()
    return whole_state(state) if is_sharded(model) else state


def sharded_state(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Return a whole state of a training, which every process holds, divided as `model` is."""
    held, moments = model.state_dict(), state["optimizer"]["state"]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        **state,
        "model": {name: _divided(t, held.get(name)) for name, t in state["model"].items()},
        "optimizer": {
            **state["optimizer"],
            "state": {
                number: {name: _divided(t, parameters[number]) for name, t in values.items()}
                for number, values in moments.items()
            },
        },
    }


def _divided(value: Any, like: Any) -> Any:
    """Return a whole tensor divided as `like` is; what has another shape as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(
        value.to(like.device), like.device_mesh, like.placements, src_data_rank=None
    )
