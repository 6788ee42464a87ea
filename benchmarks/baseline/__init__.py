"""The baseline: a workload's network and data, trained once, cached and checked bit for bit."""

from benchmarks.baseline.checks import check_before_reading, check_outputs, fitted
from benchmarks.baseline.data import Data
from benchmarks.baseline.fingerprints import weights_fingerprint
from benchmarks.baseline.store import (
    Baseline,
    cache_path,
    keep_baseline,
    make_baseline,
    obtain_baseline,
    trainable_workload,
    with_start,
)
from benchmarks.baseline.training import train
from benchmarks.baseline.workload import Workload

__all__ = [
    "Baseline",
    "Data",
    "Workload",
    "cache_path",
    "check_before_reading",
    "check_outputs",
    "fitted",
    "keep_baseline",
    "make_baseline",
    "obtain_baseline",
    "train",
    "trainable_workload",
    "weights_fingerprint",
    "with_start",
]
