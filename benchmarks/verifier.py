"""A process of its own that loads saved models and evaluates them: `python -m benchmarks.verifier`.

It has never seen the models. It reads one JSON request a line and answers each with one line.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.baseline import weights_fingerprint
from benchmarks.harness.results import encode_images
from benchmarks.workloads import resolve
from compression.errors import CompressionError
from compression.integer import deploy
from compression.storage import load
from compression.training import BATCH_SIZES, correct_images


class Verifier:
    """The other end: starts the process, asks it, ends it."""

    def __init__(self, workload: str, data_root: Path | None, device: torch.device) -> None:
        """Start the process with this one's import path and thread count."""
        arguments = ["--workload", workload, "--device", str(device)]
        arguments += ["--num-threads", str(torch.get_num_threads())]
        arguments += ["--data-root", str(data_root)] if data_root else []
        path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.verifier", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )

    def evaluate(self, path: Path, *, student: bool) -> dict[str, Any]:
        """Return what the process found in the file: fingerprint, correct images, seconds."""
        pipes = self._process
        if pipes.stdin is None or pipes.stdout is None:
            raise CompressionError("the verifier has no pipes")
        print(json.dumps({"path": str(path), "student": student}), file=pipes.stdin, flush=True)
        line = pipes.stdout.readline()
        if not line:
            raise CompressionError(f"the verifier ended ({pipes.wait()}) at {path}; see above why")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompressionError(f"the verifier: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.wait(timeout=60)


def main() -> None:
    """Serve until the requests end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--num-threads", type=int, required=True)
    parser.add_argument("--data-root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    workload = resolve(options.workload)
    test = workload.data(options.data_root).test.to(options.device)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            model = load(
                request["path"], workload.student if request["student"] else workload.network
            )
            fingerprint = weights_fingerprint(model)
            model = deploy(model.to(options.device), test.inputs(slice(0, BATCH_SIZES["cpu"])))
            started = time.perf_counter()
            correct = correct_images(model, test)
            answer: dict[str, Any] = {
                "fingerprint": fingerprint,
                "seconds": time.perf_counter() - started,
                "correct": int(correct.sum()),
                "total": len(test),
                "correct_images": encode_images(correct),
            }
        except CompressionError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
