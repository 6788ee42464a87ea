"""Data whose splits are read from Datasets: trained, kept, compressed and measured as tensors are."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from benchmarks.baseline import Baseline, Data, cache_path, check_outputs, obtain_baseline
from benchmarks.baseline.data import Augment
from benchmarks.baseline.examples import all_labels, known_labels
from benchmarks.calibration import calibration
from benchmarks.kept import Training, trained
from benchmarks.techniques import BY_NAME
from benchmarks.timing.batch import repeat_images
from compression import StreamedSplit, distill
from compression.errors import CompressionError
from compression.storage import load_checkpoint
from compression.training import correct_images
from tests.support.datasets import Made, held, image, jittered, labelled
from tests.support.workloads import CPU, TINY, WITH_STUDENT, tiny_data


def streamed(data: Data) -> Data:
    """Return data whose splits are read one image at a time."""
    train, validation, test = (
        StreamedSplit(held(split), prepare=split.prepare, augment=split.augment)
        for split in (data.train, data.validation, data.test)
    )
    return Data(train, validation, test, title=data.title)


def baseline_of(data: Data) -> Any:
    return obtain_baseline(TINY, data, CPU, load=load_checkpoint, report=lambda _: None)


def test_a_baseline_is_that_of_the_same_tensors() -> None:
    data = streamed(tiny_data())
    check_outputs(TINY, data)
    model = baseline_of(data)
    lines: list[str] = []
    for name, tensor in baseline_of(tiny_data()).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    obtain_baseline(TINY, data, CPU, load=load_checkpoint, report=lines.append)
    assert lines == [], "kept"


@dataclass
class Held(Dataset[Any]):
    """Labelled images of 8x8 with their labels beside them, as torchvision's folders hold them."""

    brightness: float = 0.0
    label: int = 0
    jitter: float = 0.0
    count: int = 200

    @property
    def targets(self) -> list[int]:
        """Return the labels."""
        return [self.label] + [i % 4 for i in range(1, self.count)]

    def __len__(self) -> int:
        """Count the images."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an image and its label."""
        drawn = self.jitter * torch.rand(())
        return image(index) + self.brightness + drawn, self.targets[index]


def place(train: Any, **options: Any) -> Path:
    rest = tiny_data()
    data = Data(StreamedSplit(train, **options), rest.validation, rest.test, title="noise")
    return cache_path(TINY, data, CPU)


def test_the_fingerprint_is_of_the_images_the_labels_and_what_is_done_with_them() -> None:
    places = [
        place(Held()), place(Held(brightness=0.1)), place(Held(label=1)), place(Held(jitter=0.1)),
        place(Held(jitter=0.2)), place(Held(count=199)), place(Held(), prepare=lambda x: x / 2),
        place(Held(), augment=Augment(shift=1)), place(Subset(Held(), range(1, 200))),
        place(Subset(Held(), range(199))),
    ]  # fmt: skip
    assert len(set(places)) == len(places)
    assert place(Held()) == places[0] == place(Held(), num_workers=2, loading={"timeout": 9})


def test_labels_are_those_that_the_dataset_holds_or_of_some_examples() -> None:
    whole = StreamedSplit(Held(label=3))
    assert known_labels(whole).tolist() == Held(label=3).targets
    assert known_labels(whole.select(torch.tensor([0, 5]))).tolist() == [3, 1]
    without = StreamedSplit(Made(labelled, 200))
    assert len(known_labels(without)) == 64
    assert all_labels(without).tolist() == [i % 4 for i in range(200)]


def test_an_example_that_cannot_be_read_is_named_and_nothing_is_kept(cache: Path) -> None:
    def torn(index: int) -> Any:
        if index == 63:
            raise OSError("image file is truncated")
        return labelled(index)

    data = replace(streamed(tiny_data()), train=StreamedSplit(Made(torn, 64)))
    with pytest.raises(
        CompressionError, match=r"Made: example 63 of 64 .* image file is truncated"
    ):
        baseline_of(data)
    assert list(cache.rglob("*.safetensors")) == []
    wrong = replace(data, train=StreamedSplit(Made(lambda i: (image(i), 9), 64)))
    with pytest.raises(CompressionError, match="expected labels from 0 to 3, found 0 to 9"):
        check_outputs(TINY, wrong)


def test_techniques_take_streamed_data() -> None:
    data = streamed(tiny_data())
    model = baseline_of(data)
    baseline = Baseline(model, data, WITH_STUDENT, CPU)
    assert sum(map(len, calibration(baseline))) == 64
    for name in ("static-int8", "channels-50-tuned", "pruned-shared-coded"):
        small = BY_NAME[name].how(baseline)
        assert len(correct_images(small, data.test)) == 16, name
    batch = repeat_images(data.validation, 20)
    assert torch.equal(batch.inputs(slice(16, 20)), data.validation.inputs(slice(0, 4)))


def test_a_training_on_a_dataset_is_done_once(done: list[str]) -> None:
    data = streamed(tiny_data())
    baseline = Baseline(baseline_of(data), data, WITH_STUDENT, CPU)

    def student(train: Any) -> Any:
        options = {"teacher": baseline.model}
        work = Training(_distilled, TINY.network(), train, TINY.recipe, options)
        return trained(baseline, work)

    first, again = student(data.train), student(data.train)
    assert len(done) == 1
    for name, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    student(StreamedSplit(Made(jittered, 64)))
    assert len(done) == 2


def _distilled(model: Any, *, train: Any, recipe: Any, teacher: Any) -> Any:
    return distill(model, teacher, train, recipe)
