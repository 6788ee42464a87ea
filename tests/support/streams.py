"""Residual streams of any form: what stands first, which operand they are, where norms read them."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.integer_nets import numbers
from tests.support.transformer_nets import Made, lively

FIRST = ("tokens", "position", "class token", "sum")


class Stream(nn.Module):
    """Blocks x + f(norm(x)), or f(norm(x)) + x, of tokens; the first makes a channel `large`."""

    def __init__(
        self, width: int, blocks: int, *, first: str = "class token", swapped: bool = False,
        ended: bool = True, moved: bool = False, tokens: int = 5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first, self.swapped, self.ended, self.moved = first, swapped, ended, moved
        self.embed, self.other = nn.Linear(3, width), nn.Linear(3, width)
        self.token = nn.Parameter(0.02 * numbers(1, 1, width))
        self.position = nn.Parameter(numbers(1, tokens + (first == "class token"), width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.ups = nn.ModuleList(nn.Linear(width, 7) for _ in range(blocks))
        self.downs = nn.ModuleList(nn.Linear(7, width) for _ in range(blocks))
        self.drop, self.norm = nn.Dropout(0.1), nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        tokens, x = x, self.embed(x)
        if self.first == "sum":
            x = self.drop(x + self.other(tokens))
        if self.first == "class token":
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.first in ("class token", "position"):
            x = self.drop(x + self.position)
        for norm, up, down in zip(self.norms, self.ups, self.downs, strict=True):
            y = self.drop(down(torch.relu(up(norm(x)))))
            x = y + x if self.swapped else x + y
            if self.moved:  # to rows and columns, some of them, in another order
                x = x[:, 1:].reshape(x.shape[0], 1, -1, x.shape[-1]).flip(2).flatten(1, 2)
        outputs: Tensor = self.head(self.norm(x) if self.ended else x)
        return outputs


def stream(width: int = 20, blocks: int = 3, *, large: float = 100.0, **options: Any) -> Made:
    """Return a residual stream, and tokens for it."""
    torch.manual_seed(0)
    batch, tokens = options.pop("batch", 3), options.get("tokens", 5)
    model = Stream(width, blocks, **options)
    lively(model)
    with torch.no_grad():
        model.downs[0].weight[0] *= large
    return model, numbers(batch, tokens, 3)


@st.composite
def streams(draw: st.DrawFn, large: tuple[float, ...] = (1.0, 1e3, 1e6)) -> Made:
    """Any residual stream of a few tokens, a channel of them so `large`."""
    return stream(
        draw(st.integers(1, 90)), draw(st.integers(1, 3)), batch=draw(st.sampled_from((1, 3))),
        tokens=draw(st.integers(4, 17)), first=draw(st.sampled_from(FIRST)),
        swapped=draw(st.booleans()), ended=draw(st.booleans()), moved=draw(st.booleans()),
        large=draw(st.sampled_from(large)),
    )  # fmt: skip
