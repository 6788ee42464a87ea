"""A model on a CUDA device is saved as on the CPU, and loads there."""

from pathlib import Path

import pytest
import torch

from compression.storage import load, load_checkpoint, save
from tests.support.storage_nets import KINDS, digest, make

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("kind", ["float", "tied", "bfloat16", "weights-3-bit-sparse", "shared"])
def test_a_model_on_a_device_gives_the_same_file(tmp_path: Path, kind: str, coded: bool) -> None:
    model, factory = make(kind), KINDS[kind][0]
    before = digest(model)
    for device in ("cpu", "cuda"):
        save(model.to(device), tmp_path / device, entropy_coded=coded)
        assert all(t.device.type == device for t in model.state_dict().values())
    assert (tmp_path / "cuda").read_bytes() == (tmp_path / "cpu").read_bytes()
    for read in (load, load_checkpoint):
        loaded = read(tmp_path / "cuda", lambda: factory().to("cuda"))
        assert all(t.device.type == "cpu" for t in loaded.state_dict().values())
        assert digest(loaded) == before
