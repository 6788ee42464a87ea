"""Each test keeps trainings in a folder of its own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import kept
from benchmarks.kept import Training


@pytest.fixture(autouse=True)
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where trainings are kept."""
    monkeypatch.setattr(kept, "cache_folder", lambda: tmp_path / "kept")
    kept._PROBED.clear()
    return tmp_path / "kept" / "trainings"


@pytest.fixture
def new_process() -> Callable[[], None]:
    """Return what forgets what only a process knows."""
    return kept._PROBED.clear


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the functions whose trainings were done, probes apart."""
    functions: list[str] = []
    train = kept._train

    def noted(training: Training, device: torch.device, resume: Any) -> tuple[nn.Module, Any]:
        if len(training.images) > 4:
            verb = training.how.args[0] if isinstance(training.how, partial) else training.how
            functions.append(verb.__name__)
        return train(training, device, resume)

    monkeypatch.setattr(kept, "_train", noted)
    return functions
