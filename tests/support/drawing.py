"""Draws a program: its inputs, some lines, an end."""

import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tests.support import channel_lines, layers, operators, shapes, strange
from tests.support.builder import Builder, Pick, Value
from tests.support.program import LAYOUTS, Program
from tests.support.weights import set_weights

INPUTS = (
    (3, 6, 5),
    (3, 6, 5),
    (4, 8, 8),
    (2, 4, 4),
    (6,),
    (4, 7),
    (2, 3, 4, 3),
    (1, 5, 5),
    (8, 3, 3),
)
USUAL = (
    *[layers.convolution] * 4, *[layers.linear] * 2, *[layers.norm] * 2, *[operators.activation] * 3,
    *[operators.addition] * 3, operators.activation_in_place, operators.number, operators.nothing,
    operators.broadcast, operators.concatenation, layers.transposed, layers.layer_again,
    shapes.max_pool, shapes.average_pool, shapes.adaptive_pool, shapes.mean, shapes.flatten,
    shapes.reshaped, shapes.sliced, shapes.axes, operators.function, operators.product,
    operators.parts, operators.spread,
)  # fmt: skip
# What real image networks consist of, and the integer kernels are made for.
IMAGES = ((3, 6, 5), (4, 8, 8), (2, 4, 4), (1, 7, 7), (8, 3, 3))
IMAGE = (
    *[layers.convolution] * 5, *[layers.norm] * 2, *[operators.activation] * 3,
    *[operators.addition] * 3,
    operators.activation_in_place, operators.broadcast, operators.concatenation, layers.layer_again,
    shapes.max_pool, shapes.average_pool, shapes.adaptive_pool, operators.number, operators.nothing,
    *[operators.function] * 2, *[operators.product] * 2, operators.parts, operators.spread,
)  # fmt: skip
# What channels pass, or must stay for.
CHANNELS = (
    *[channel_lines.function] * 8, *[channel_lines.layer] * 3, *[channel_lines.tensor] * 2,
    *[channel_lines.gate] * 2, channel_lines.halves, channel_lines.product, channel_lines.attention,
)  # fmt: skip
ODD = (*[strange.strange] * 3, strange.own_class, strange.parametrized)
MOST_LINES = 8


def draw(
    pick: Pick,
    *,
    odd: bool = False,
    image: bool = False,
    classifier: bool = False,
    channels: bool = False,
    outputs: bool = False,
) -> Program:
    """Return a program of usual lines, and some odd ones, or of those of an image network.

    A classifier ends in 4 logits, and an image network most often. With `channels`, lines of all that
    channels pass are among the usual ones, and a layer follows. With `outputs` there are several.
    """
    b = Builder(pick)
    b.argument(pick(IMAGES if image else INPUTS))
    if odd and pick((False, False, False, False, True)):
        b.argument(pick((b.shapes[0], pick(INPUTS))))
        b.features.add("several inputs")
    first: Any = layers.convolution if b.values[0].ndim > 2 else layers.linear
    while first(b) is None:
        first = layers.linear
    for _ in range(pick((2, 1, 3, 4, 6, 0))):
        kinds = IMAGE if image else (*USUAL, *ODD) if odd else USUAL
        kinds = (*USUAL, *CHANNELS) if channels else kinds
        for _ in range(3):
            if len(b.lines) < MOST_LINES and pick(kinds)(b) is not None:
                break
    if (
        classifier
        or (channels and pick((True, True, False)))
        or (image and pick((True, True, False)))
    ):
        _logits(b)
    if pick((False, False, False, True)):
        _optional(b)
    set_weights(b)
    layout = pick((LAYOUTS[0], *LAYOUTS))
    source = b.source(_end(b, 1.0 if outputs else 0.125 if odd or channels else 0.0))
    if "padding=" in source and "dilation=" in source and layout == "channels last":
        # torch 2.14.1's own convolution crashes there, where a window lies within the border.
        layout = LAYOUTS[0]
    drawn = Program(source, tuple(b.shapes), frozenset(b.features), layout)
    return drawn if drawn.runs() else replace(drawn, layout=LAYOUTS[0])  # a view asks for an order


def _logits(b: Builder) -> None:
    """End as a classifier: everything in one row, a linear layer or two."""
    last = b.values[-1]
    if last.ndim > 2:
        last = b.add(f"torch.flatten({last.name}, 1)", last) or last
    if b.pick((False, True)):
        layer = b.layer("hidden", f"nn.Linear({last.shape[-1]}, 5)")
        last = b.add(f"F.relu({layer}({last.name}))", last) or last
    b.add(f"{b.layer('head', f'nn.Linear({last.shape[-1]}, 4)')}({last.name})", last)


def _optional(b: Builder) -> None:
    """Give forward an argument that is left out."""
    v = b.values[-1]
    if b.pick((True, False)):
        b.arguments.append("mask=None")
        b.line(f"if mask is not None: {v.name} = {v.name} + mask")
    else:
        b.arguments.append("scaled=False")
        b.line(f"if scaled: {v.name} = {v.name} * 3.0")
    b.features.add("optional argument")


def _end(b: Builder, several: float) -> str:
    """Return what the network returns: at this rate several values in a structure."""
    last: Value = b.values[-1]
    if not several or (several < 1 and b.pick((*[True] * 7, False))):
        return last.name
    other = b.pick(b.values)
    b.features.add("several outputs")
    b._look_at([other])
    texts = ("{v}, {w}", "[{v}, {w}]", "{{'logits': {v}, 'map': {w}}}", "({v},)", "{{'out': {v}}}")
    text: str = b.pick(texts)
    return text.format(v=last.name, w=other.name)


@st.composite
def programs(draw_one: st.DrawFn, **options: bool) -> Program:
    """Draw a program for hypothesis; the options are those of `draw`."""
    return draw(lambda choices: draw_one(st.sampled_from(choices)), **options)


def program_of_seed(seed: int, **options: bool) -> Program:
    """Return the program that a seed stands for."""
    return draw(random.Random(seed).choice, **options)
