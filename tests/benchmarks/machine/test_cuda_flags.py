"""Settings that a time on a GPU depends on, read without an error however they were set."""

from pathlib import Path

import pytest
import torch

from benchmarks.machine import cuda_flags as flags
from benchmarks.machine.cuda_flags import autotune, cuda_flags, describe_cuda, driver_version
from tests.support.runs import run_program

READ = """
import torch, warnings
warnings.simplefilter("error")
{setting}
from benchmarks.machine.cuda_flags import cuda_flags
found = cuda_flags()
print(found["tf32_matmul"], found["tf32_cudnn"], found["float32_matmul_precision"])
"""


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", "False True highest"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "True True high"),
        ("torch.set_float32_matmul_precision('high')", "True True high"),
        ("torch.backends.cudnn.allow_tf32 = False", "False False highest"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "True True tf32"),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "False False highest"),
        ("torch.backends.fp32_precision = 'tf32'", "True True tf32"),
    ],
)
def test_tf32_is_read_whichever_way_it_was_set(setting: str, expected: str) -> None:
    # In a process of its own: torch cannot go back from the newer settings to the older ones.
    run = run_program(READ.format(setting=setting))
    assert run.stdout.strip() == expected, run.stderr


def test_the_facts_name_the_versions() -> None:
    found = cuda_flags()
    assert found["cuda_version"] == torch.version.cuda
    assert found["cudnn_version"] == torch.backends.cudnn.version()
    assert found["cudnn_deterministic"] is torch.backends.cudnn.deterministic


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build", "580.95.05"),
        ("NVIDIA UNIX x86_64 Kernel Module  570.86  Tue\nGCC version:  gcc 12.3.0", "570.86"),
        ("nothing of the kind", None),
        (None, None),
    ],
)
def test_the_driver_is_read_where_it_can_be(
    text: str | None, version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "version"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(flags, "_DRIVER", path)
    assert driver_version() == version


@pytest.mark.parametrize("before", [False, True])
def test_cudnn_is_tuned_on_a_gpu_only_and_restored_after_an_error_too(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def failing(device: str) -> None:
        with autotune(torch.device(device)):
            seen.append(torch.backends.cudnn.benchmark)
            raise KeyError

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    for device in ("cpu", "cuda"):
        with pytest.raises(KeyError):
            failing(device)
        assert torch.backends.cudnn.benchmark is before
    assert seen == [before, True]


def test_the_header_names_the_card_and_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Made-up H0")
    monkeypatch.setattr(flags, "tf32_matmul", lambda: False)
    monkeypatch.setattr(flags, "tf32_cudnn", lambda: True)
    assert describe_cuda() == (
        "Made-up H0, TF32 on for convolutions and off for matrix products, "
        "cudnn.benchmark on while latency is measured"
    )
