"""A process of its own that loads saved models and evaluates them: `python -m benchmarks.verifier`.

It has never seen the models before.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.baseline import fitted, weights_fingerprint
from benchmarks.baseline.judged import judged
from benchmarks.machine.process import Process, serve
from benchmarks.workloads import resolve
from compression.integer import deploy
from compression.storage import load
from compression.training import BATCH_SIZES


def start(workload: str, data_root: Path | None, device: torch.device) -> Process:
    """Start the process with this one's thread count."""
    threads = torch.get_num_threads()
    arguments = {"workload": workload, "data-root": data_root, "device": device}
    return Process("benchmarks.verifier", {**arguments, "num-threads": threads})


def parse_options() -> argparse.Namespace:
    """Return what `start` passes on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--num-threads", type=int, required=True)
    parser.add_argument("--data-root", type=Path)
    return parser.parse_args()


def main() -> None:
    """Serve until the requests end: the path of a file, and whether it holds the student."""
    options = parse_options()
    torch.set_num_threads(options.num_threads)
    workload = resolve(options.workload, Path.cwd())
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    data = workload.data(options.data_root)
    workload, test = fitted(workload, data), data.test.to(device)
    example = test.inputs(slice(0, BATCH_SIZES[device.type]))

    def evaluate(path: str, *, student: bool) -> dict[str, Any]:
        model = load(path, workload.student if student else workload.network)
        fingerprint = weights_fingerprint(model)
        model = deploy(model.to(device), example)
        started = time.perf_counter()
        facts = judged(model, test, workload.metric)
        return {"fingerprint": fingerprint, "seconds": time.perf_counter() - started, **facts}

    serve(evaluate)


if __name__ == "__main__":
    main()
