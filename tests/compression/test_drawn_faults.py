"""What drawn networks found: each small network and the property that it broke."""

import contextlib
from collections.abc import Callable
from functools import partial

import pytest

from tests.support import executed, techniques
from tests.support.drawn import QUIET
from tests.support.program import HEADER, Program
from tests.support.refusals import RefusedError

pytestmark = QUIET
Check = Callable[[Program], None]


def program(
    shape: tuple[int, ...], layers: tuple[str, ...], lines: tuple[str, ...], *setup: str
) -> Program:
    """Return a program: lines of __init__, of forward(self, x), and of what sets weights."""
    text = [
        "class Drawn(nn.Module):",
        "    def __init__(self):",
        *[f"        {line}" for line in ("super().__init__()", *layers)],
        "    def forward(self, x):",
        *[f"        {line}" for line in lines],
        "def network():",
        *[f"    {line}" for line in ("torch.manual_seed(0)", "net = Drawn().eval()", *setup)],
        "    return net",
    ]
    return Program(HEADER + "\n".join(text), (shape,))


# what was wrong: (the network, what it broke)
FAULTS: dict[str, tuple[Program, Check]] = {
    "outputs that read no layer: the device was asked of parameters that dead code took along": (
        program((3, 4), ("self.a = nn.Linear(4, 2)",), ("v = self.a(x)", "return x.relu()")),
        executed.static,
    ),
    "a batch norm without affine numbers, standing alone": (
        program(
            (3, 4, 4),
            ("self.a = nn.Conv2d(3, 3, 1)", "self.n = nn.BatchNorm2d(3, affine=False)"),
            ("return self.n(self.a(x).relu())",),
        ),
        executed.static,
    ),
    "a batch norm after a linear layer on maps: refused, though neither is anything special": (
        program(
            (3, 4, 4),
            ("self.a = nn.Linear(4, 2)", "self.n = nn.BatchNorm2d(3)"),
            ("return self.n(self.a(x))",),
        ),
        executed.static,
    ),
    "a batch norm of rows, as many as channels: taken for one image without a batch": (
        program(
            (6,),
            ("self.a = nn.Linear(6, 4)", "self.n = nn.BatchNorm1d(4)"),
            ("return self.n(self.a(x).relu())",),
            "net.n.running_mean.uniform_(-1, 1)",
            "net.n.bias.normal_()",
        ),
        executed.static,
    ),
    "a batch norm after a linear layer on tokens": (
        program(
            (3, 4),
            ("self.a = nn.Linear(4, 2)", "self.n = nn.BatchNorm1d(3)"),
            ("return self.n(self.a(x))",),
        ),
        executed.static,
    ),
    "a linear layer on the last axis of maps: the C kernels read it as rows": (
        program(
            (3, 4, 4),
            ("self.a = nn.Conv2d(3, 4, 1)", "self.b = nn.Linear(4, 6)"),
            ("return self.b(self.a(x)).flatten(1)",),
        ),
        executed.native,
    ),
    "a batch's size kept from the example while lowering": (
        program(
            (4, 6, 6),
            ("self.a = nn.Conv2d(4, 4, 1)", "self.b = nn.Linear(144, 2)"),
            ("n, c, h, w = x.size()", "return self.b(self.a(x).view(n, c * h * w))"),
        ),
        executed.deployed,
    ),
    "an addition in place to a value that is read again: memory that nobody wrote": (
        program(
            (3, 4, 4),
            ("self.a = nn.Conv2d(3, 3, 1)", "self.b = nn.Conv2d(3, 3, 3, padding=1)"),
            ("v = self.a(x)", "w = self.b(v)", "w += v", "return torch.cat([w, v], 1)"),
        ),
        executed.onednn,
    ),
    "a linear layer on maps, its input no multiple of eight, dynamically": (
        program((3, 2, 5), ("self.a = nn.Linear(5, 3)",), ("return self.a(x)",)),
        techniques.rounded,
    ),
    "tied weights cast to float16": (
        program(
            (6,),
            (
                "self.a = nn.Linear(6, 6)",
                "self.b = nn.Linear(6, 6)",
                "self.b.weight = self.a.weight",
            ),
            ("return self.b(self.a(x))",),
        ),
        techniques.rounded,
    ),
    "a transposed 1-d convolution whose weights were not shared": (
        program((3, 6), ("self.a = nn.ConvTranspose1d(3, 5, 3)",), ("return self.a(x)",)),
        techniques.shared,
    ),
    "an average of 3-d pixels in bfloat16, for which torch has no kernel": (
        program(
            (2, 3, 4, 3),
            ("self.a = nn.Conv3d(2, 2, 1)",),
            ("return F.avg_pool3d(self.a(x), 2)",),
        ),
        techniques.rounded,
    ),
    "an average pool with a border, which OpenVINO computes otherwise than its file says": (
        program(
            (3, 8, 8),
            ("self.a = nn.Conv2d(3, 8, 3, padding=1)", "self.b = nn.Linear(128, 4)"),
            ("v = F.avg_pool2d(self.a(x), 3, 2, 1)", "return self.b(v.flatten(1))"),
        ),
        partial(executed.named, executor="openvino"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_found_stays_mended(fault: str) -> None:
    network, check = FAULTS[fault]
    with contextlib.suppress(RefusedError):  # refused with a reason is right too
        check(network)
