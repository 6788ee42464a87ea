"""Train a workload's baseline where a run of the benchmarks looks for it, alone or under torchrun.

python -m benchmarks.train --workload NAME
torchrun --nproc-per-node 2 -m benchmarks.train --workload NAME
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from benchmarks.baseline import (
    Data,
    Workload,
    cache_path,
    check_outputs,
    fitted,
    make_baseline,
    trainable_workload,
)
from benchmarks.baseline.cache import lock
from benchmarks.baseline.processes import check_same, failed_first, joined
from benchmarks.workloads import read_data, resolve
from compression.errors import CompressionError
from compression.paths import cache_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print where the weights are; one process says what is wrong."""
    try:
        _train(_parser().parse_args(arguments))
    except CompressionError as error:
        raise SystemExit(str(error) if failed_first() else 1) from error


def _parser() -> ArgumentParser:
    parser = ArgumentParser("benchmarks.train", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", default="digits", metavar="NAME|package.module:attribute")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="as pytest benchmarks/ takes it"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--sharded",
        action="store_true",
        help="each process holds a part of the network (FSDP2): where it does not fit one device",
    )
    parser.add_argument(
        "--num-threads",
        type=int,
        default=os.cpu_count() or 1,
        help="torch's threads of the run that will read the baseline, by which it is named on a CPU; "
        "the processes of a host share them",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=300,
        metavar="S",
        help="to wait for other processes to start",
    )
    return parser


def _train(options: Namespace) -> None:
    if options.num_threads < 1:
        raise CompressionError(f"--num-threads must be at least 1, found {options.num_threads}")
    if options.sharded and os.environ.get("WORLD_SIZE", "1") == "1":
        raise CompressionError(
            "--sharded divides the network among processes, found one: start more by torchrun, or "
            "drop --sharded"
        )
    device = _device(options.device)
    report = _printer(first=os.environ.get("RANK", "0") == "0")
    workload = resolve(options.workload, Path.cwd())
    with _one_downloads(options.data_root):
        data = read_data(workload, options.data_root)
    workload = fitted(workload, data)
    check_outputs(workload, data)
    # Alone: fingerprints train a few steps, which are not those of several processes.
    with _threads(options.num_threads):
        workload = trainable_workload(workload, data, device, report)
        path = cache_path(workload, data, device)
    torch.set_num_threads(
        max(1, options.num_threads // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    )
    with joined(options.device, options.timeout):
        _check_same(workload, data, device)
        make_baseline(path, workload, data, device, sharded=options.sharded, report=report)
        report(f"{workload.name} baseline: {path}")


def _one_downloads(root: Path | None) -> AbstractContextManager[None]:
    """Let the processes of a host read what one of them has downloaded, one after the other."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return lock(cache_folder() / "data") if several and root is None else nullcontext()


def _check_same(workload: Workload, data: Data, device: torch.device) -> None:
    check_same(
        torch=torch.__version__,
        images_with_the_fingerprint=data.fingerprint(),
        a_recipe_with_the_fingerprint=workload.recipe_fingerprint(device),
    )


def _device(kind: str) -> torch.device:
    """Return this process's device, and make it the current one."""
    if kind == "cpu":
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise CompressionError(
            f"--device cuda: process {number} of this host has no CUDA device of its own, since torch "
            f"can use {count or 'none'}; start one process per device by --nproc-per-node"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _printer(*, first: bool) -> Callable[[str], None]:
    """Return what prints a line at once, in one of the processes."""

    def report(line: str) -> None:
        if first:
            print(line, flush=True)

    return report


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch have so many threads, which name a baseline on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main(sys.argv[1:])
