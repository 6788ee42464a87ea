"""Which of torchvision's networks each engine makes smaller, and whether what is left is right.

Half of the multiply-accumulates go. The result is right where it gives what the whole network gives
with zeros in the place of what went: each number that is left stands where it stood.

`python -m benchmarks.peers.coverage NETWORK ENGINE` prints an outcome: each has a process of its own,
since an engine may need more time or memory than there is.
"""

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.coverage import WrongResultError, removed
from benchmarks.coverage.__main__ import FAMILIES
from benchmarks.coverage.case import Case, sqnr
from benchmarks.peers.pruning import OURS, REMOVERS
from compression.accounting import count_macs
from compression.errors import CompressionError

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = tuple(name for name in FAMILIES.split() if name != "vgg11")
"""One per family; of networks of plain convolutions AlexNet is enough, VGG takes ten times as long."""
MACS = 0.5
SIDES = {"inception_v3": 299}
"""Of networks whose training takes no smaller images, which ours asks for."""
LIMIT_S = 300.0
LIMIT_GIB = 8
WORDS = 12
"""Of an engine's refusal, so many are shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine made of a network: the share of its multiply-accumulates that is left.

    `as_zeros`: the outputs are those of zeros; None where there are none, and `refusal` says why.
    """

    seconds: float
    macs_left: float | None = None
    as_zeros: bool | None = None
    refusal: str | None = None


def attempt(name: str, engine: str) -> Outcome:
    """Have an engine halve a network, within LIMIT_S and LIMIT_GIB."""
    command = [sys.executable, "-m", "benchmarks.peers.coverage", name, engine]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    started = time.perf_counter()
    try:
        run = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S,
            check=engine == OURS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(LIMIT_S, refusal=f"takes more than {LIMIT_S:.0f} s")
    if run.returncode:
        seconds = time.perf_counter() - started
        return Outcome(seconds, refusal=f"its process ended with {run.returncode}")
    return Outcome(**json.loads(run.stdout))


def halve(name: str, engine: str) -> Outcome:
    """Have an engine halve a network of drawn weights, in float64."""
    case = Case(name)
    # A number that occurs once tells which channels went.
    whole, x = removed.no_number_twice(case.model), _images(case)
    started = time.perf_counter()
    try:
        smaller = REMOVERS[engine](whole, x, MACS)
        seconds = time.perf_counter() - started
        with torch.no_grad():
            outputs = smaller(x)
    except MemoryError:
        return Outcome(time.perf_counter() - started, refusal=f"takes more than {LIMIT_GIB} GiB")
    except Exception as error:
        if engine == OURS and not isinstance(error, CompressionError):
            raise
        return Outcome(time.perf_counter() - started, refusal=_in_short(error))
    if outputs.shape != case.wanted.shape:
        return Outcome(seconds, refusal=f"outputs of shape {tuple(outputs.shape)}")
    left = count_macs(smaller, x[:1]) / count_macs(whole, x[:1])
    return Outcome(seconds, left, _as_zeros(whole, smaller, outputs, x))


def _images(case: Case) -> Tensor:
    if case.name not in SIDES:
        return case.x.double()
    side, generator = SIDES[case.name], torch.Generator().manual_seed(0)
    return torch.randn(2, 3, side, side, generator=generator, dtype=torch.float64)


def _as_zeros(whole: nn.Module, smaller: nn.Module, outputs: Tensor, x: Tensor) -> bool:
    """Tell whether the outputs are those of the whole network with zeros for what went."""
    try:
        zeroed = removed.with_zeros(whole, smaller)
    except WrongResultError:
        return False
    with torch.no_grad():
        return sqnr(outputs, zeroed(x)) >= removed.ZEROED


def _in_short(error: Exception) -> str:
    """Return the first words of an error, with its type where it is not ours."""
    words = str(error).split()
    text = " ".join(words[:WORDS]) + " ..." * (len(words) > WORDS)
    return text if isinstance(error, CompressionError) else f"{type(error).__name__}: {text}"


def main() -> None:
    """Print the outcome of a network and an engine."""
    warnings.simplefilter("ignore")  # torchvision's, of how weights will be drawn
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT_GIB * 2**30,) * 2)
    print(json.dumps(asdict(halve(*sys.argv[1:]))))


if __name__ == "__main__":
    main()
