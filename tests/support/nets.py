"""Small networks and data for the tests."""

import torch
from torch import Tensor, nn

from compression.training import Recipe, Split


class Residual(nn.Module):
    """Convolutions, batch norms, ReLU and ReLU6, an addition, a concatenation, pools."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.relu6 = nn.ReLU(inplace=True), nn.ReLU6()
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.relu6(self.bn2(self.conv2(x)) + x)
        z = self.pool(torch.cat([x, y], 1))
        z = nn.functional.adaptive_avg_pool2d(z, 1)
        return self.fc(self.drop(torch.flatten(z, 1)))  # type: ignore[no-any-return]


def residual(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Residual()
    with torch.no_grad():
        for name, tensor in model.named_buffers():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + (0.5 if name.endswith("var") else 0))
    return model.eval()


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def grey() -> nn.Module:
    """Return a network of five classes for images of one channel."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def images(count: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def split(count: int = 64, seed: int = 0) -> Split:
    x = images(count, seed)
    return Split(x, x.mean(dim=(1, 2, 3)).gt(0).long(), prepare=lambda x: x)


RECIPE = Recipe(epochs=2, batch_size=16, learning_rate=0.05)
