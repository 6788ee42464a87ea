"""What a row of the benchmarks promises: how it is made, what it must reach, what it may claim."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from benchmarks.baseline import Baseline
from compression.integer import deploy

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Target:
    """A file at most `size` of the baseline's, a drop at most `drop`, a speed-up at least."""

    size: float | None = None
    drop: float | None = None
    speed_up: float | None = None


def targets(
    *,
    size: float,
    drop_digits: float | None = None,
    drop_cifar10: float | None = None,
    speed_up: float | None = None,
) -> dict[str, Target]:
    """Return a row's targets by workload: only the drop in accuracy differs between them."""
    drops = {"digits": drop_digits, "cifar10": drop_cifar10}
    return {name: Target(size, drop, speed_up) for name, drop in drops.items()}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a row may say of its time on a device.

    - `kind`: "latency"; "simulated" where its arithmetic stands for kernels that do not run there, and
      "size only" where no kernel gains by it: both have no latency.
    - `kernels`: sets of kernels, of which one must be seen to run whole before a latency counts.
    - `otherwise`: what it means where none did: a failed test, or a row that is smaller only.
    - `speed_up`: what it must reach on this device, where that is not what the row's target says.
    """

    kind: Literal["latency", "simulated", "size only"] = "latency"
    kernels: tuple[tuple[str, ...], ...] = ()
    otherwise: Literal["failure", "size only"] = "failure"
    speed_up: float | None = None


LATENCY = Claim()
SIMULATED = Claim("simulated")
SIZE_ONLY = Claim("size only")


@dataclass(frozen=True, slots=True, eq=False)
class Technique:
    """A row by its name: how the baseline becomes the compressed model, targets, and claims.

    - `targets`: by workload; another workload is measured without.
    - `claims`: by device; it is measured on these.
    - `left_out_on`: workloads that it tells nothing on, and takes seconds of.
    - `prepare`: makes the file's model ready for inputs like the given ones.
    - `entropy_coded`: how its file is stored.
    - `facts`: what each of its results records besides; benchmarks/facts/schema.py knows them.
    """

    name: str
    how: Callable[[Baseline], nn.Module]
    targets: Mapping[str, Target] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=lambda: dict.fromkeys(DEVICES, LATENCY))
    left_out_on: tuple[str, ...] = ()
    family: str = ""
    student: bool = False
    prepare: Callable[[nn.Module, Tensor], nn.Module] = deploy
    channels_last: bool = False
    entropy_coded: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name, which is the test's id."""
        return self.name

    def target(self, workload: str) -> Target:
        """Return what it promises on a workload: nothing on one without a target."""
        return self.targets.get(workload, Target())

    def speed_up_on(self, device: str, workload: str) -> float | None:
        """Return the speed-up that it promises on a device and a workload; None where it does not."""
        target, claimed = self.target(workload).speed_up, self.claim_on(device).speed_up
        return target if target is None or claimed is None else claimed

    def claim_on(self, device: str) -> Claim:
        """Return what it may say of its time on a device: a latency where nothing is known."""
        return self.claims.get(device, LATENCY)
