"""The face of the package: what it exports, what it costs to import, and what it does not import."""

import json
import subprocess
import sys

import compression
from tests.support.places import ROOT

EXPORTED = [
    "Architecture", "AttentionTransfer", "CompressionError", "Decoupled", "Dist", "Hinton",
    "MeanSquared", "Recipe", "Split", "Standardized", "StreamedSplit", "cast", "contents", "count_macs",
    "deploy",
    "distill", "explain", "export_onnx", "fine_tune", "fine_tune_centroids", "fit", "learn_pruned",
    "learn_shared", "left_out", "load", "load_checkpoint", "lower_semi_structured",
    "prune_gradually", "prune_iteratively", "prune_l1_global", "prune_l1_unstructured",
    "prune_ln_structured", "prune_n_of_m", "prune_random_unstructured", "quantize_aware",
    "quantize_dynamic", "quantize_static", "quantize_weights", "recalibrate_batch_norm",
    "remove_channels", "remove_channels_softly", "round_vectors", "save", "share_weights",
    "sparsity",
]  # fmt: skip
FOREIGN = (
    "triton",
    "torchvision",
    "onnx",
    "onnxruntime",
    "openvino",
    "matplotlib",
    "torch._dynamo",
    "torchvision",
)
IMPORT = """
import builtins, json, subprocess, sys, torch
before = set(sys.modules)
def refuse(*args, **kwargs):
    raise AssertionError(f"a process was started: {args}")
subprocess.Popen.__init__ = refuse
import compression
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_the_names_are_those_that_users_know() -> None:
    assert sorted(compression.__all__) == sorted(EXPORTED)
    for name in EXPORTED:
        assert getattr(compression, name).__doc__, f"{name} has a docstring"


def test_its_import_compiles_nothing_and_brings_no_engine() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = json.loads(done.stdout)
    assert "compression.storage" in imported
    assert [name for name in FOREIGN if name in imported] == []


def test_types_are_shipped() -> None:
    assert (ROOT / "compression" / "py.typed").is_file()
    assert "MIT License" in (ROOT / "LICENSE").read_text()
