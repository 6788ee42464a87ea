"""Networks between whose layers images are not first: tokens are, or windows of all images."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.transformer_nets import detector

WIDTH = 32


class Read(nn.Module):
    """16 patches of an image, encoded tokens first: `before` the encoder, and `after`."""

    def __init__(
        self, before: Callable[["Read", Tensor], Tensor], after: Callable[[Tensor], Tensor]
    ) -> None:
        """Draw the weights."""
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after = before, after
        self.patches = nn.Conv2d(3, WIDTH, 4, stride=4)
        self.place = nn.Parameter(torch.randn(16, 1, WIDTH))
        self.factors = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.gate = nn.Linear(WIDTH, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 64, dropout=0.0, activation="gelu", norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the classes of images."""
        tokens = self.before(self, self.patches(x).flatten(2).permute(2, 0, 1))
        found: Tensor = self.head(self.norm(self.after(self.encoder(tokens))))
        return found


def _first(x: Tensor) -> Tensor:
    return x[0]


def _mean(x: Tensor) -> Tensor:
    return x.mean(0)


class Windows(nn.Module):
    """Attention within windows of 2x2 patches, those of all images along one axis."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(3, WIDTH, 4, stride=4), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.place = nn.Parameter(torch.randn(1, 4, WIDTH) / 2)
        self.bias, self.head = nn.Parameter(torch.randn(4, 4, 4)), nn.Linear(WIDTH, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the classes of images."""
        tokens = self.patches(x).permute(0, 2, 3, 1)
        windows = tokens.view(-1, 2, 2, 2, 2, WIDTH).transpose(2, 3).reshape(-1, 4, WIDTH)
        windows = self.norm(windows) + self.place
        q, k, v = self.qkv(windows).view(-1, 4, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        found = F.scaled_dot_product_attention(q, k, v, self.bias)
        windows = windows + self.out(found.transpose(1, 2).flatten(2))
        more = torch.cat([windows, F.relu(windows)], 1)[:, 5]
        classes: Tensor = self.head(more).view(-1, 4, 10)[:, 1]
        return classes


NETS: dict[str, Callable[[], nn.Module]] = {
    "windows": Windows,
    "queries": lambda: detector(batch_first=False, norm_first=True)[0],
    "mean": lambda: Read(lambda _, x: x, _mean),
    "places": lambda: Read(lambda net, x: x + net.place, _first),
    "factors": lambda: Read(lambda net, x: x * net.factors, _mean),
    "gate": lambda: Read(
        lambda net, x: x * torch.sigmoid(net.gate(x)), lambda x: x.transpose(0, 1)[:, 3]
    ),
    "more tokens": lambda: Read(lambda _, x: torch.cat([x, F.relu(x)]), _first),
    "other channels": lambda: Read(
        lambda net, x: torch.cat([x, F.gelu(net.gate(x))], 2)[..., 16:48], _mean
    ),
}


def images(count: int = 4) -> Tensor:
    """Return images of 16x16 drawn at random."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(count))
