"""The images that calibrate ranges and statistics."""

from collections.abc import Iterator

from torch import Tensor

from benchmarks.baseline import Baseline

CALIBRATION_BATCH = 64


def calibration(b: Baseline) -> Iterator[Tensor]:
    """Yield the inputs of some training images, 64 at a time."""
    images = b.data.train.take(b.workload.calibration_images)
    starts = range(0, len(images), CALIBRATION_BATCH)
    return (images.inputs(slice(i, i + CALIBRATION_BATCH)) for i in starts)
