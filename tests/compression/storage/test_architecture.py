"""A file that names its architecture loads alone; one that names another is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from compression.architectures import Architecture
from compression.errors import CheckpointError, CompressionError
from compression.quantization import quantize_static
from compression.storage import load, save
from compression.storage.container import read
from tests.support.runs import printed_by
from tests.support.storage_faults import FILES, forge, intact_bytes, loaded, refuses
from tests.support.storage_nets import digest

STUDENT = Architecture("five-layer-cnn", 10)

ARCHITECTURES: dict[str, tuple[Any, str]] = {
    "unknown": ({"name": "resnet17", "num_classes": 10}, "unknown architecture 'resnet17'"),
    "a detector": (
        {"name": "fasterrcnn_resnet50_fpn", "num_classes": 10},
        "unknown architecture 'fasterrcnn_resnet50_fpn'",
    ),
    "a path": ({"name": "os.system", "num_classes": 10}, "unknown architecture 'os.system'"),
    "an option more": (
        {"name": "resnet18", "num_classes": 10, "weights": "DEFAULT"},
        "unexpected keyword argument 'weights'",
    ),
    "an option that is code": (
        {"name": "resnet18", "num_classes": 10, "norm_layer": "__import__('os').system('ls')"},
        "unexpected keyword argument 'norm_layer'",
    ),
    "its class": ({"__class__": "x", "name": "resnet18", "num_classes": 10}, "__class__"),
    "no name": ({"num_classes": 10}, "missing 1 required"),
    "no classes": ({"name": "resnet18"}, "missing 1 required"),
    "a name of a list": ({"name": [], "num_classes": 10}, "its architecture"),
    "a name of null": ({"name": None, "num_classes": 10}, "unknown architecture None"),
    "huge": ({"name": "five-layer-cnn", "num_classes": 10**12}, r"must lie in 1\.\.100000"),
    "none": ({"name": "five-layer-cnn", "num_classes": 0}, r"must lie in 1\.\.100000, found 0"),
    "true": ({"name": "five-layer-cnn", "num_classes": True}, "found True"),
    "a fraction": ({"name": "five-layer-cnn", "num_classes": 10.0}, r"found 10\.0"),
    "far larger than the file": (
        {"name": "vit_h_14", "num_classes": 10},
        "which takes about 2[0-9]{9}; pass a factory",
    ),
    "with far more classes": (
        {"name": "five-layer-cnn", "num_classes": 100_000},
        "which takes about 1[0-9]{9}; pass a factory",
    ),
    "a text": ("resnet18", "its architecture resnet18"),
    "a list": (["resnet18", 10], "its architecture"),
    "false": (False, "its architecture False"),
    "nothing": (None, "names no architecture; pass a factory"),
    "another": ({"name": "squeezenet1_1", "num_classes": 10}, "which takes about 5105824"),
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_that_is_none(tmp_path: Path, kind: str) -> None:
    named, match = ARCHITECTURES[kind]
    data = forge(lambda _, about: about.update(architecture=named))
    refuses(tmp_path / "model", data, match=match, factory=None)


def test_a_factory_goes_before_the_architecture_that_a_file_names(tmp_path: Path) -> None:
    expected = digest(loaded(intact_bytes(), FILES["net"][1]))
    for named, _ in ARCHITECTURES.values():
        data = forge(lambda _, about, n=named: about.update(architecture=n))  # type: ignore[misc]
        assert digest(loaded(data, FILES["net"][1])) == expected


def student() -> nn.Module:
    torch.manual_seed(0)
    return STUDENT().eval()


SAVED: dict[str, dict[str, Any]] = {"plain": {}, "static": {}, "coded": {"entropy_coded": True}}
PROGRAM = """
import json, sys
from pathlib import Path
from compression.storage import load
from tests.support.storage_nets import digest
print(json.dumps({f.name: digest(load(f)) for f in sorted(Path(sys.argv[1]).iterdir())}))
"""


def test_a_fresh_process_loads_a_file_alone(tmp_path: Path) -> None:
    models = {"plain": student(), "coded": student()}
    models["static"] = quantize_static(student(), torch.randn(4, 3, 32, 32))
    for kind, options in SAVED.items():
        save(models[kind], tmp_path / kind, architecture=STUDENT, **options)
    printed = printed_by(PROGRAM, tmp_path)
    assert json.loads(printed) == {kind: digest(model) for kind, model in models.items()}
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(load(tmp_path / "static")(images), models["static"](images))


def test_save_refuses_an_architecture_that_is_not_the_models(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(CompressionError, match=r"the model is not .*five-layer-cnn.*missing"):
        save(nn.Linear(2, 2), path, architecture=STUDENT)
    with pytest.raises(CompressionError, match=r"num_classes=9.*16\.weight expected .*\(9, 600\)"):
        save(student(), path, architecture=Architecture("five-layer-cnn", 9))
    static = quantize_static(student(), torch.randn(4, 3, 32, 32))
    with pytest.raises(CompressionError, match="the model is not"):
        save(static, path, architecture=Architecture("five-layer-cnn", 9))
    assert not path.exists()


def test_a_file_that_names_none_says_so(tmp_path: Path) -> None:
    save(nn.Linear(2, 2), tmp_path / "model")
    assert "architecture" not in (read(tmp_path / "model").about or {})
    with pytest.raises(CheckpointError, match="names no architecture; pass a factory"):
        load(tmp_path / "model")


def test_naming_the_architecture_leaves_the_random_numbers_of_the_caller(tmp_path: Path) -> None:
    """A training that saves goes on as one that does not."""
    model = student()
    state = torch.get_rng_state()
    save(model, tmp_path / "model", architecture=STUDENT)
    assert torch.equal(torch.get_rng_state(), state)


# Networks of squeezenet's state dict that are not squeezenet.
OTHERS: dict[str, tuple[Callable[[Any], object], str]] = {
    "another activation": (
        lambda m: m.features.__setitem__(1, nn.GELU()),
        r"features\.1 is .*GELU, expected .*ReLU",
    ),
    "another stride": (
        lambda m: setattr(m.features[0], "stride", (1, 1)),
        r"features\.0\.stride is \(1, 1\), expected \(2, 2\)",
    ),
    "an attribute": (
        lambda m: setattr(m, "transform_input", True),
        "the network.transform_input is True, expected None",
    ),
    "a hook": (
        lambda m: m.features.register_forward_hook(lambda *_: None),
        "features is with 1 hooks",
    ),
    "a forward": (
        lambda m: setattr(m.features, "forward", lambda x: x),
        "features is .* forward of its own",
    ),
    "a layer more": (lambda m: m.add_module("extra", nn.Dropout()), "extra is a layer of one"),
    "a buffer more": (
        lambda m: m.register_buffer("table", torch.ones(2), persistent=False),
        "table, a buffer that a state dict leaves out",
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_an_architecture_of_other_layers_or_options_is_refused(kind: str, tmp_path: Path) -> None:
    change, match = OTHERS[kind]
    model = models.squeezenet1_1(num_classes=2)
    change(model)
    named = Architecture("squeezenet1_1", 2)
    with pytest.raises(CompressionError, match=f"the model is not .*{match}.*load a factory"):
        save(model, tmp_path / "model", architecture=named)
    assert not list(tmp_path.iterdir())


def test_an_architecture_is_not_its_name(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=r"expected an Architecture.*found str"):
        save(nn.Linear(2, 2), tmp_path / "model", architecture="resnet18")  # type: ignore[arg-type]
