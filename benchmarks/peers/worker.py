"""One process per engine, woken in turn: `python -m benchmarks.peers.worker`.

In one process the engines' spinning thread pools would disturb each other; asleep in processes of
their own they do not.
"""

import argparse
import importlib
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.baseline.networks import with_classes
from benchmarks.facts.record import encode_images
from benchmarks.machine.kernels import count_integer_kernels, kernels_of
from benchmarks.machine.process import serve
from benchmarks.peers.engines import BY_NAME, Setting
from benchmarks.workloads import resolve
from compression.layers import left_out
from compression.nested import tensors_in
from compression.storage import load_checkpoint

EVALUATION_BATCH = 50
SHORT_S = 0.1
"""A shorter prediction is repeated each time its worker is woken; the median counts."""
REPEATS = 3


def in_rows(outputs: Any) -> Tensor:
    """Return all outputs of each image as one row: of several tensors, or of a dictionary of some.

    >>> in_rows({"out": torch.ones(2, 3, 4)}).shape
    torch.Size([2, 12])
    """
    return torch.cat([leaf.flatten(1) for leaf in tensors_in(outputs)], 1)


class Worker:
    """Serves one engine: build its file, start it, time one prediction, evaluate it."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Open the images, and import the engine before any clock runs."""
        self.engine = BY_NAME[options.engine]
        for package in self.engine.packages:
            importlib.import_module(package)
        self.factory = with_classes(resolve(options.workload).network, options.num_classes)
        self.baseline = options.baseline
        self.images = safe_open(options.images, "pt")

    def answer(self, do: str, **request: Any) -> dict[str, Any]:
        """Answer a request by its name."""
        with torch.inference_mode():
            reply: dict[str, Any] = getattr(self, do)(**request)
        return reply

    def build(self, path: str) -> dict[str, Any]:
        """Write the engine's file; the checkpoint is read before the clock starts."""
        with torch.inference_mode(False):
            model = load_checkpoint(self.baseline, self.factory).eval()
            calibration = self.images.get_tensor("calibration")
            started = time.perf_counter()
            with torch.no_grad():
                self.engine.build(model, calibration, Path(path))
            return {"seconds": time.perf_counter() - started}

    def start(self, path: str, batch_size: int) -> dict[str, Any]:
        """Prepare to predict a batch of validation images."""
        self.batch = self.images.get_tensor("validation")[:batch_size]
        self.predict = self.engine.start(Path(path), Setting(self.batch, self.factory))
        for _ in range(3):
            self._seconds(self.batch)
        return {}

    def time(self) -> dict[str, Any]:
        """Time a prediction, after one that wakes threads and fills caches."""
        repeats = REPEATS if self._seconds(self.batch) < SHORT_S else 1
        times = sorted(self._seconds(self.batch) for _ in range(repeats))
        return {"seconds": times[repeats // 2]}

    def look(self, batch_size: int) -> dict[str, Any]:
        """Return what a prediction of a batch runs; only of our executors is it known."""
        if not isinstance(self.predict, nn.Module):
            return {"integer_kernels": 0, "stayed": []}
        ran = kernels_of(self.predict, self.images.get_tensor("validation")[:batch_size])
        stayed = {*left_out(self.predict), *getattr(self.predict, "stayed", ())}
        return {"integer_kernels": count_integer_kernels(ran), "stayed": sorted(stayed)}

    def predict_all(self, path: str) -> dict[str, Any]:
        """Write the outputs of all validation images beside the file, one image at a time."""
        images = self.images.get_tensor("validation")
        predict = self.engine.start(Path(path), Setting(images[:1], self.factory))
        outputs = torch.cat([in_rows(predict(image)).float() for image in images.split(1)])
        written = Path(path).parent / "outputs.safetensors"
        save_file({"outputs": outputs.contiguous()}, written)
        return {"outputs": str(written)}

    def evaluate(self, path: str) -> dict[str, Any]:
        """Predict every test image."""
        images, labels = self.images.get_slice("test"), self.images.get_tensor("labels")
        example = images[:EVALUATION_BATCH]
        predict = self.engine.start(Path(path), Setting(example, self.factory))
        parts = range(0, len(labels), EVALUATION_BATCH)
        classes = [predict(images[i : i + EVALUATION_BATCH]).argmax(1) for i in parts]
        correct = torch.cat(classes) == labels
        return {
            "correct": int(correct.sum()),
            "total": len(correct),
            "correct_images": encode_images(correct),
        }

    def _seconds(self, inputs: Tensor) -> float:
        started = time.perf_counter()
        self.predict(inputs)
        return time.perf_counter() - started


def main() -> None:
    """Serve until the requests end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True, choices=BY_NAME)
    parser.add_argument("--workload", required=True)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--num-threads", type=int, required=True)
    parser.add_argument("--num-classes", type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    serve(Worker(options).answer)


if __name__ == "__main__":
    main()
