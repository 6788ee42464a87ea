"""torchvision's networks as workloads, and what a worker tells of one."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.coverage.case import sqnr
from benchmarks.peers import networks
from benchmarks.peers.worker import Worker
from benchmarks.workloads import resolve
from compression.errors import CompressionError
from compression.integer import lacking, preferred

NAME = "squeezenet1_1"
AT_LEAST_DB = 20.0
"""INT8 of drawn weights: what is wrong has 0."""


def test_a_network_is_found_by_its_name() -> None:
    workload = resolve(f"benchmarks.peers.networks:{NAME}")
    assert workload.name == NAME
    first, second = (workload.network().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    with pytest.raises(CompressionError, match=r"expected one of alexnet, .* found 'resnet19'"):
        resolve("benchmarks.peers.networks:resnet19")


def test_a_worker_tells_outputs_and_kernels_of_what_it_deployed(tmp_path: Path) -> None:
    model = networks.network(NAME)
    images, shown = torch.rand(4, 3, 64, 64), torch.rand(2, 3, 64, 64)
    save_file(model.state_dict(), tmp_path / "baseline.safetensors")
    save_file({"calibration": images, "validation": shown}, tmp_path / "images.safetensors")
    options = argparse.Namespace(
        engine="compression-int8",
        workload=f"benchmarks.peers.networks:{NAME}",
        baseline=tmp_path / "baseline.safetensors",
        images=tmp_path / "images.safetensors",
        num_classes=1000,
    )
    worker, path = Worker(options), str(tmp_path / "model.safetensors")
    worker.answer("build", path=path)
    outputs = load_file(worker.answer("predict_all", path=path)["outputs"])["outputs"]
    with torch.no_grad():
        wanted = model.double()(shown.double())
    assert sqnr(outputs, wanted) >= AT_LEAST_DB
    worker.answer("start", path=path, batch_size=1)
    seen = worker.answer("look", batch_size=1)
    assert seen["stayed"] == []
    assert seen["integer_kernels"] > 0 or all(map(lacking, preferred("cpu")))
