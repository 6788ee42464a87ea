"""The README's Python runs as it stands there."""

import re
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from benchmarks.workloads import Workload
from compression.quantization import StaticQuantizedModel
from tests.support.nets import images, residual, split
from tests.support.places import ROOT

README = (ROOT / "README.md").read_text()


def run(containing: str, **names: Any) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    exec(next(block for block in blocks if containing in block), names)
    return names


def test_your_own_model_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run(
        "quantize_static",
        build_and_load=residual,
        build=lambda: residual(seed=1),
        train_images=cycle([images()]),
    )
    assert isinstance(found["again"], StaticQuantizedModel)
    for name, tensor in found["small"].state_dict().items():
        assert tensor.equal(found["again"].state_dict()[name]), name
    assert capsys.readouterr().out.endswith(" MiB\n")


def test_your_own_workload() -> None:
    parts: list[str] = []

    def read(part: str) -> tuple[Any, Any]:
        parts.append(part)
        return split().images.abs().byte(), split().labels

    mine = run("MINE", build=residual, read=read)["MINE"]
    assert isinstance(mine, Workload)
    assert mine.data(None).train.inputs(slice(0, 2)).shape == (2, 3, 8, 8)
    assert parts == ["train", "val", "test"]


def test_every_option_named_in_the_readme_exists(pytestconfig: pytest.Config) -> None:
    table = README.partition("## Options")[2].partition("## ")[0]
    parser = pytestconfig._parser
    known = {
        name for g in [*parser._groups, parser._anonymous] for o in g.options for name in o.names()
    }
    named = set(re.findall(r"--[a-z][a-z-]+", table))
    assert {"--workload", "--figures"} <= named
    assert named - known == set()
