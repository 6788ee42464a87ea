"""Properties of networks and inputs in other number formats."""

import torch
from torch import nn

from tests.support import techniques
from tests.support.bounds import BFLOAT16, FLOAT16, Rounding
from tests.support.compared import assert_within, bounds, run
from tests.support.program import Program
from tests.support.refusals import RefusedError

FORMATS: dict[torch.dtype, Rounding] = {
    torch.float64: Rounding(),
    torch.bfloat16: BFLOAT16,
    torch.float16: FLOAT16,
}
NAMES = ("l1", "shared", "folded", "weights", "dynamic", "bfloat16", "static")
"""One technique of each kind; what they round is added to the format's own rounding."""


class _Typed(Program):
    """A program whose network and inputs are of another format."""

    dtype: torch.dtype = torch.float32

    def build(self) -> nn.Module:
        return super().build().to(self.dtype)

    def inputs(self, batch: int = 4, *, seed: int = 1) -> tuple[torch.Tensor, ...]:
        return tuple(x.to(self.dtype) for x in super().inputs(batch, seed=seed))


def typed(program: Program, dtype: torch.dtype) -> Program:
    """Return the program in another format."""
    kind = type("Typed", (_Typed,), {"dtype": dtype})
    made: Program = kind(program.source, program.shapes, program.features, program.layout)
    return made


def in_formats(program: Program) -> None:
    """Every technique takes a network of any format and errs by its rounding and the format's."""
    for dtype, own in FORMATS.items():
        other = typed(program, dtype)
        try:
            _runs(other)
        except (RuntimeError, NotImplementedError):  # torch has no such kernel on this machine
            continue
        for name in NAMES:
            try:
                net = techniques.technique(other, name)
            except RefusedError:
                continue
            _check(other, net, name, own)


def _runs(program: Program) -> None:
    run(program.build(), program.inputs())


def _check(program: Program, net: nn.Module, name: str, own: Rounding) -> None:
    """Compare with float64: of what is not rounded the technique's own network is the measure."""
    rounding = techniques.TECHNIQUES[name][2]
    float_net = net if rounding is None and name != "folded" else program.build()
    right = bounds(float_net, program.inputs(), own)
    if rounding is not None:
        more = bounds(float_net, program.inputs(), rounding)
        # Twice: what the format rounds is rounded again, further on.
        right = [(v, 2 * (b + c)) for (v, b), (_, c) in zip(right, more, strict=True)]
    found = techniques.run_where_there_are_kernels(net, program.inputs())
    assert_within(found, right, f"{name} of {program.inputs()[0].dtype}")
