"""Networks and data that training is tried on."""

import torch
from torch import Tensor, nn

from compression.training import Recipe, Split

ONE = Recipe(epochs=1, batch_size=4, learning_rate=0.01)


class Viewed(nn.Module):
    """Flattens by view, which has no meaning for images that lie channels last."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(144, 5)
        self.norm = nn.BatchNorm1d(5) if norm else nn.Identity()
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.is_contiguous())
        return self.norm(self.fc(self.conv(x).view(x.size(0), -1)))  # type: ignore[no-any-return]


def noise(*shape: int, classes: int = 5, labels: tuple[int, ...] = ()) -> Split:
    torch.manual_seed(0)
    wanted = torch.randint(0, classes, (shape[0], *labels))
    return Split(torch.randn(shape), wanted, lambda x: x)


def changed(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not torch.equal(t, before[n]) for n, t in model.state_dict().items())


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
