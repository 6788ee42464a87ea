"""Tensors of each encoding. Files of them stand in tests/golden: add others rather than change them."""

import torch
from torch import Tensor


def numbers(*shape: int, step: int = 7919) -> Tensor:
    """Return float32 numbers of all sorts, in arithmetic that is exact everywhere."""
    count = torch.Size(shape).numel()
    return (((torch.arange(count) + 1) * step) % 1013 - 506.5).view(shape) / 64


def every(tensor: Tensor, step: int) -> Tensor:
    """Return the tensor with zeros but at every so many-th element."""
    places = torch.arange(tensor.numel()).view(tensor.shape) % step == step - 1
    return torch.where(places, tensor, torch.zeros_like(tensor))


def raw_tensors() -> dict[str, Tensor]:
    """Return a tensor of each encoding that is not entropy-coded."""
    codes = (torch.arange(63) * 5 % 8 - 4).to(torch.int8)
    few = torch.tensor([0.5, 0.25, -1.5, 3.0, 7.0, -0.0])
    clustered = few[torch.arange(72) * 5 % 7 % 6].view(8, 9)
    values = few[torch.arange(2400) // 3 % 6]
    return {
        "dense": numbers(3, 4, 5),
        "brain": numbers(9).bfloat16(),
        "empty": numbers(0, 3),
        "count": torch.tensor(2**40),
        "flags": torch.tensor([True, False, True]),
        "mask": every(numbers(5, 20), 2),
        "gaps": every(numbers(4, 600), 256),  # gaps of 255 take a byte more
        "packed": codes.view(7, 9),
        "packed-mask": every(codes.repeat(4) | 1, 4),
        "packed-gaps": every(codes.repeat(40) | 1, 300),
        "clustered": clustered,
        "clustered-mask": every(values, 4),
        "clustered-gaps": every(values, 20),
    }


RAW_BITS = {"packed": 3, "packed-mask": 4, "packed-gaps": 5}


def coded_tensors() -> dict[str, Tensor]:
    """Return a tensor of each entropy-coded encoding, and small ones to be joined."""
    few = torch.tensor([0.5, 0.25, -1.5, 3.0, 7.0, -0.0])
    skewed = torch.arange(600) % 7 * (torch.arange(600) % 11 == 0)
    grid = (numbers(64, 64).frac() * 6).to(torch.int8)
    grid[::3], grid[:, 1::4] = 0, 0  # dead rows and columns: with contexts
    taps = few[(numbers(16, 32, 3, 3) * 64).long() % 6]
    taps[2:14] = 0.5
    mask = torch.zeros(64, 128, dtype=torch.float16)
    mask[:3] = numbers(3, 128)  # too many values for a codebook
    return {
        "bias": numbers(60).bfloat16().float(),
        "scale": torch.tensor(0.5),
        "float16": numbers(40).half(),
        "count": torch.tensor(300),
        "flags": torch.tensor([True, False] * 20),
        "values": numbers(16, 32).bfloat16().float(),
        "mask": mask,
        "codes": skewed[:300].to(torch.int8).view(10, 30),
        "indices": few[skewed % 6].view(20, 30),
        "grid": grid,
        "taps": taps,
    }
