"""Networks of every kind that is stored, and how two are compared; imports nothing slow."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compression.layers import copy_model
from compression.quantization import cast, quantize_dynamic, quantize_static, quantize_weights
from compression.removal import remove_channels
from compression.storage import load


class Small(nn.Module):
    """Convolution, batch norm, linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(6, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(self.hidden(torch.flatten(x, 1)))
        return logits


class Tokens(nn.Module):
    """Patches, attention to them and to a token that is learned, a transformer's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, 8, 4, 4)
        self.mix = nn.MultiheadAttention(8, 4, batch_first=True, add_bias_kv=True)
        self.layer = nn.TransformerEncoderLayer(8, 4, 8, batch_first=True, bias=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.layer(x + self.mix(x, x, x)[0])
        logits: Tensor = self.head(x.mean(1))
        return logits


class Steps(nn.Module):
    """Rows of an image as steps of two recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(16, 4, batch_first=True, bidirectional=True)
        self.after = nn.GRU(8, 5, 2, batch_first=True, bias=False)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.transpose(1, 2).flatten(2))[0]
        logits: Tensor = self.head(self.after(x)[0].mean(1))
        return logits


class Wide(Small):
    """Small with a layer of so many weights that each encoding may pay."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 800)
        self.head = nn.Linear(800, 8)


class Pair(nn.Module):
    """Two linear layers that share their weight where `tied`."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(16, 16)
        self.decoder = nn.Linear(16, 16)
        if tied:
            self.decoder.weight = self.encoder.weight


class Holds(nn.Module):
    """A linear layer beside a tensor."""

    def __init__(self, tensor: Tensor | None, *, persistent: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        if isinstance(tensor, nn.Parameter):
            self.register_parameter("odd", tensor)
        else:
            self.register_buffer("odd", tensor, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x)
        if self.odd is None or not self.odd.numel():
            return logits
        return logits + self.odd.reshape(-1)[-1]


class Versioned(nn.Linear):
    """Loads what its own version wrote, as torchvision's MNASNet does."""

    _version = 5

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any
    ) -> None:
        if local_metadata.get("version") != self._version:
            raise ValueError(f"version {local_metadata.get('version')}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class Bag(nn.Module):
    """Any tensors: floats as parameters, the rest as buffers."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                self.register_parameter(name, nn.Parameter(tensor))
            else:
                self.register_buffer(name, tensor)


def empty(tensors: dict[str, Tensor]) -> nn.Module:
    """Return a bag of zeros, which only a file can fill."""
    return Bag({name: torch.zeros_like(tensor) for name, tensor in tensors.items()})


def raw(tensor: Tensor) -> bytes:
    packed = tensor.detach().clone(memory_format=torch.contiguous_format).view(-1)
    return packed.view(torch.uint8).numpy().tobytes()


def digest(model: nn.Module) -> str:
    """Hash every name, dtype, shape and bit."""
    whole = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + raw(tensor))
    return whole.hexdigest()


def sparse(model: nn.Module, share: float = 0.6) -> nn.Module:
    """Zero a random share of each weight of more than one dimension, by hand."""
    model = copy_model(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Not a product with the mask: -1 * 0 is -0.0, a value that the file must keep.
                parameter.masked_fill_(torch.rand(parameter.shape) < share, 0)
    return model


def odd_bits(model: nn.Module) -> nn.Module:
    """Put -0.0, subnormals and the largest number among zeros."""
    model = sparse(model, 0.9)
    weight = model.get_parameter("hidden.weight")
    bits = torch.tensor([-(2**31), 1, -(2**31) + 1, 0x7F7FFFFF], dtype=torch.int32)
    with torch.no_grad():
        weight.view(-1)[:4] = bits.view(torch.float32)
    return model


def shared(model: nn.Module) -> nn.Module:
    """Let each weight have one of 16 values, nine of ten of them zero."""
    model = sparse(model, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                codebook = torch.randn(16)
                parameter.copy_(codebook[torch.randint(0, 16, parameter.shape)])
    return sparse(model, 0.9)


def smaller(model: nn.Module, parameters: float = 0.5) -> nn.Module:
    """Remove channels until half of the parameters stay, or another fraction."""
    return remove_channels(model, torch.randn(IMAGES), parameters=parameters, multiple_of=1)


def rounded_norms(model: nn.Module) -> nn.Module:
    """Round batch norms to bfloat16, in float32: half of their bytes are zero."""
    model = copy_model(model)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith("norm.") and tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor).bfloat16())
    return model


def tied() -> nn.Module:
    return Pair(tied=True)


def untied() -> nn.Module:
    return Pair(tied=False)


def golden_network() -> nn.Module:
    network = Pair(tied=False)
    network.register_buffer("sparse", torch.zeros(40))
    network.register_buffer("count", torch.zeros((), dtype=torch.int64))
    return network


class Stream(nn.Module):
    """A residual stream of patches and a class token, two LayerNorms between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.token = nn.Conv2d(2, 6, 4, 4), nn.Parameter(torch.randn(1, 1, 6) / 9)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x))
        return x[:, 0]


IMAGES = (4, 2, 8, 8)
Factory = Callable[[], nn.Module]


class Scores(nn.Module):
    """Scores of each pixel from maps of two sizes, summed and made as large as the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1)
        self.low, self.high = nn.Conv2d(6, 3, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(F.avg_pool2d(x, 2)))
        pooled = F.interpolate(self.high(F.avg_pool2d(y, 2)), y.shape[2:], None, "bilinear")
        return F.interpolate(self.low(y) + pooled, x.shape[2:], None, "bilinear")


# Every kind of model: what makes the float network, and what compresses it.
KINDS: dict[str, tuple[Factory, Callable[[nn.Module], nn.Module]]] = {
    "float": (Small, lambda m: m),
    "sparse": (Small, sparse),
    "odd-bits": (Small, odd_bits),
    "tied": (tied, lambda m: m),
    "untied": (untied, lambda m: m),
    "float16": (Small, lambda m: cast(m, torch.float16)),
    "bfloat16": (Small, lambda m: cast(sparse(m), torch.bfloat16)),
    "dynamic": (Small, quantize_dynamic),
    "static": (Small, lambda m: quantize_static(m, torch.randn(IMAGES))),
    "static-stream": (Stream, lambda m: quantize_static(m, torch.randn(IMAGES))),
    "static-tail": (Scores, lambda m: quantize_static(m, torch.randn(IMAGES))),
    "weights": (Small, lambda m: quantize_weights(m)),
    "weights-3-bit-sparse": (Small, lambda m: quantize_weights(sparse(m, 0.9), num_bits=3)),
    "shared": (Wide, shared),
    "rounded-norms": (Wide, rounded_norms),
    "static-wide": (Wide, lambda m: quantize_static(sparse(m), torch.randn(IMAGES))),
    "weights-4-bit-groups": (Small, lambda m: quantize_weights(m, num_bits=4, group_size=5)),
    "weights-attention": (Tokens, lambda m: quantize_weights(m, num_bits=4)),
    "dynamic-attention": (Tokens, quantize_dynamic),
    "weights-recurrent": (Steps, quantize_weights),
    "dynamic-recurrent": (Steps, quantize_dynamic),
    "channels": (Small, smaller),
    "attention": (Tokens, lambda m: smaller(m, 0.6)),
    "static-channels": (Small, lambda m: quantize_static(smaller(m), torch.randn(IMAGES))),
}


def make(kind: str) -> nn.Module:
    factory, compress = KINDS[kind]
    torch.manual_seed(0)
    return compress(factory().eval()).eval()


def print_digests(folder: str) -> None:
    """Load each file, named by its kind and how it was saved; run in a process of its own."""
    files = sorted(Path(folder).iterdir())
    print(json.dumps({f.name: digest(load(f, KINDS[f.name.split()[0]][0])) for f in files}))
