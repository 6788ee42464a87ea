"""Small networks with LayerNorm, attention and constants: torchvision's, torch's, and by hand."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from tests.support.integer_nets import numbers
from tests.support.tricky_nets import Net

Made = tuple[nn.Module, Tensor]


def lively(model: nn.Module) -> nn.Module:
    """Return `model` in eval mode with factors, shifts, tokens and biases that are not 0 and 1."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name or (parameter.ndim == 1 and name.endswith("weight")):
                parameter.uniform_(0.4, 1.5, generator=generator)
            elif parameter.ndim == 1:
                parameter.normal_(0, 0.1, generator=generator)
            elif any(word in name for word in ("token", "pos", "bias_table", "head")):
                parameter.normal_(0, 0.3, generator=generator)
    return model.eval()


def vit() -> Made:
    torch.manual_seed(0)
    return lively(VisionTransformer(32, 8, 2, 3, 36, 40, num_classes=5)), numbers(5, 3, 32, 32)


def convnext() -> Made:
    """Channels that fill no vector, and layer scales within the network."""
    torch.manual_seed(0)
    blocks = [CNBlockConfig(20, 36, 1), CNBlockConfig(36, None, 1)]
    return lively(ConvNeXt(blocks, num_classes=5)), numbers(3, 3, 40, 32)


def maxvit() -> Made:
    """Windows and grids of tokens, relative positions, squeeze and excite."""
    torch.manual_seed(0)
    net = MaxVit((16, 16), 8, 2, [8, 12], [1, 1], 4, 0.0, num_classes=5)
    return lively(net), numbers(2, 3, 16, 16)


def swin() -> Made:
    torch.manual_seed(0)
    net = SwinTransformer([4, 4], 12, [2, 2], [2, 3], [4, 4], num_classes=5)
    return lively(net), numbers(3, 3, 32, 32)


class Encoded(nn.Module):
    """Torch's encoder on tokens, with a causal mask or none."""

    def __init__(self, *, masked: bool, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(24, 4, 40, batch_first=True, **options)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.masked = nn.Linear(24, 6), masked
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(9))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(x, mask=self.mask if self.masked else None))
        return outputs


def encoder(*, masked: bool, **options: Any) -> Made:
    torch.manual_seed(0)
    return lively(Encoded(masked=masked, **options)), numbers(4, 9, 24)


class ByHand(nn.Module):
    """A vision transformer as timm writes it: class token, scales of layers, attention in products."""

    def __init__(self, *, fused: bool, width: int = 20, heads: int = 2) -> None:
        super().__init__()
        self.fused, self.heads, self.scale = fused, heads, (width // heads) ** -0.5
        self.embed = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos = nn.Parameter(torch.zeros(1, 17, width))
        self.pos_of_heads = nn.Parameter(torch.zeros(heads, 17, 17))
        self.norm1, self.norm2, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.gamma = nn.Parameter(torch.rand(width))
        self.fc1, self.fc2 = nn.Linear(width, 50), nn.Linear(50, width)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(width, 6)

    def attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q * self.scale) @ k.transpose(-2, -1) + self.pos_of_heads
            x = self.drop(scores.softmax(dim=-1)) @ v
        return self.drop(self.proj(x.transpose(1, 2).reshape(batch, tokens, width)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = self.drop(torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos)
        x = x + self.gamma * self.attend(self.norm1(x))
        x = x + self.drop(self.fc2(self.drop(F.gelu(self.fc1(self.norm2(x))))))
        x = self.norm(x)
        outputs: Tensor = self.head(x[:, 0] if self.fused else x.mean(1))
        return outputs


def by_hand(*, fused: bool) -> Made:
    torch.manual_seed(0)
    return lively(ByHand(fused=fused)), numbers(4, 3, 32, 32)


def _there_and_back(s: Any, x: Tensor) -> Tensor:
    """Images, tokens in rows and columns, images again; numbers that scale and shift."""
    x = s.norm(F.silu(s.a(s.conv(x).permute(0, 2, 3, 1)) * 2.5 + 1))
    x = s.last(x.permute(0, 3, 1, 2)) * torch.arange(1.0, 9.0).view(8, 1, 1)
    return s.head(x.flatten(2).transpose(1, 2)[:, ::3])  # type: ignore[no-any-return]


def moved() -> Made:
    torch.manual_seed(0)
    net = Net(
        _there_and_back, conv=nn.Conv2d(3, 20, 3, padding=1), a=nn.Linear(20, 30),
        norm=nn.LayerNorm(30), last=nn.Conv2d(30, 8, 3, padding=1), head=nn.Linear(8, 4),
    )  # fmt: skip
    return lively(net), numbers(3, 3, 9, 7)


def long_rows() -> Made:
    """Sums of more codes than float32 counts, and tokens as the output."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 700), nn.LayerNorm(700), nn.Linear(700, 9))
    return lively(net), numbers(2, 15, 12)


class Detector(nn.Module):
    """Learned queries look at the features of an image (Carion et al. 2020, arXiv:2005.12872)."""

    def __init__(self, *, batch_first: bool, width: int = 16, **options: Any) -> None:
        super().__init__()
        self.axis = 0 if batch_first else 1
        self.conv = nn.Conv2d(3, width, 4, 4)
        options = {"dropout": 0.0, "batch_first": batch_first, **options}
        layer = nn.TransformerEncoderLayer(width, 2, 20, **options)
        encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(width), enable_nested_tensor=False)
        self.transformer = nn.Transformer(width, 2, 1, 2, 20, custom_encoder=encoder, **options)
        self.queries, self.head = nn.Parameter(torch.rand(5, width)), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens = x.shape[0], self.conv(x).flatten(2)
        order, sizes = ((0, 2, 1), (count, 1, 1)) if self.axis == 0 else ((2, 0, 1), (1, count, 1))
        queries = self.queries.unsqueeze(self.axis).repeat(*sizes)
        found = self.transformer(tokens.permute(*order), queries)
        return self.head(found if self.axis == 0 else found.transpose(0, 1))


def detector(**options: Any) -> Made:
    torch.manual_seed(0)
    return lively(Detector(**options)), numbers(3, 3, 12, 16)


NETS: dict[str, Callable[[], Made]] = {
    "vit": vit,
    "convnext": convnext,
    "maxvit": maxvit,
    "swin": swin,
    "encoder": lambda: encoder(masked=False),
    "encoder, norms first": lambda: encoder(masked=True, norm_first=True, activation="gelu"),
    "by hand": lambda: by_hand(fused=False),
    "by hand, fused": lambda: by_hand(fused=True),
    "moved": moved,
    "long rows": long_rows,
    "queries": lambda: detector(batch_first=True),
}
