"""ImageNet end to end on a miniature: 1,000 class folders that are streamed, and what may be wrong."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.baseline import with_start
from benchmarks.baseline.imagenet import CLASSES, ImageNet
from benchmarks.workloads import IMAGENET
from compression.errors import CompressionError
from compression.training import StreamedSplit
from tests.support.imagenet import draw_imagenet
from tests.support.runs import run_pytest

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_imagenet(tmp_path_factory.mktemp("imagenet"))


def test_a_run_takes_the_weights_as_they_are(miniature: Path, tmp_path: Path) -> None:
    saved = tmp_path / "run.json"
    done = run_pytest(
        *("benchmarks/test_accuracy.py", "benchmarks/test_size.py", "-q", "-p", "no:cacheprovider"),
        *("--workload", "tests.support.imagenet:MINIATURE", "--data-root", str(miniature)),
        f"--benchmark-json={saved}",
        XDG_CACHE_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is trained" in done.stdout
    facts = [entry["extra_info"] for entry in json.loads(saved.read_text())["benchmarks"]]
    accuracy = {f["technique"]: f["total"] for f in facts if f["metric"] == "accuracy"}
    assert accuracy == dict.fromkeys(
        ("baseline", "static-int8", "l1-unstructured-60-tuned"), CLASSES
    )
    size = {f["technique"]: f["stored_bytes"] for f in facts if f["metric"] == "size"}
    assert 3.8 < size["baseline"] / size["static-int8"] < 4.1


def test_images_are_cropped_as_the_weights_were_judged(miniature: Path) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.models import ResNet50_Weights

    data = ImageNet()(miniature)
    assert isinstance(data.test, StreamedSplit)
    index = torch.tensor([3, 500])
    places = torch.tensor(data.test.dataset.indices)[index].tolist()
    judged = ResNet50_Weights.IMAGENET1K_V1.transforms(antialias=True)
    wanted = ImageFolder(str(miniature / "val"), judged)
    inputs = torch.stack([wanted[place][0] for place in places])
    # PIL rounds a resized pixel to 8 bits in both.
    torch.testing.assert_close(data.test.inputs(index), inputs, rtol=0, atol=1e-6)
    assert data.test.at(index)[1].tolist() == [wanted[place][1] for place in places]


def test_splits_are_disjoint_and_drawn_once(miniature: Path) -> None:
    one, two = (ImageNet(size=32)(miniature) for _ in range(2))
    train, validation = (set(split.dataset.indices) for split in (one.train, one.validation))
    assert (len(train), len(validation), len(one.test)) == (1_600, 400, CLASSES)
    assert not train & validation
    assert one.fingerprint() == two.fingerprint()
    first = one.test.at(slice(0, 32))[1]
    assert len(first.unique()) == 32, "calibration and examples see many classes"


def test_what_is_no_imagenet_is_named(miniature: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="pass --data-root FOLDER"):
        ImageNet()(None)
    with pytest.raises(CompressionError, match="expected a folder per class"):
        ImageNet()(tmp_path)
    few = draw_imagenet(tmp_path / "few", train=1, val=1)
    damaged = few / "train" / "n00000007" / "0.JPEG"
    damaged.write_bytes(damaged.read_bytes()[:200])
    dataset = ImageNet(size=32)(few).train.dataset.dataset
    with pytest.raises(CompressionError, match=r"n00000007/0\.JPEG: not a readable image"):
        dataset[7]
    (few / "val" / "n00000007").rename(few / "val" / "other")
    with pytest.raises(CompressionError, match="same class folders, found n00000007, other"):
        ImageNet()(few)
    for part in ("train", "val"):
        for folder in sorted((few / part).iterdir())[10:]:
            folder.rename(tmp_path / f"{part}-{folder.name}")
    with pytest.raises(
        CompressionError, match="expected the 1000 class folders of ImageNet, found 10"
    ):
        ImageNet()(few)


def test_weights_that_cannot_be_downloaded_are_asked_for() -> None:
    def unreachable() -> torch.nn.Module:
        raise OSError("Name or service not known")

    workload = replace(IMAGENET, pretrained=unreachable)
    with pytest.raises(CompressionError, match="pass them by --baseline CHECKPOINT"):
        with_start(workload, CPU)
