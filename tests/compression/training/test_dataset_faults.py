"""What a Dataset or DataLoader cannot give is one error that names the example and the remedy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from compression import StreamedSplit, distill, fit, quantize_static
from compression.errors import CompressionError, UnsupportedTypeError
from compression.training import as_split, correct_images, predict
from tests.support.datasets import Made, Stream, image, labelled
from tests.support.nets import mlp, residual
from tests.support.training_nets import ONE, changed, state

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*multi-threaded, use of fork"
)


class NoLength(Dataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return labelled(index)


def at(index: int, other: Callable[[], Any]) -> Made:
    """Return examples as they should be, but for one."""
    return Made(lambda i: other() if i == index else labelled(i))


def lost() -> Any:
    raise KeyError("a file that is gone")


def short(index: int) -> Any:
    return [labelled(i) for i in range(7)][index]


def named(index: int) -> Any:
    return {"image": image(index), "label": index % 4}


EXAMPLES: dict[str, tuple[Any, str]] = {
    "strings": (Made(lambda _: "cat"), r"Made: example 0, str: expected tensors of inputs"),
    "strings for labels": (
        Made(lambda i: (image(i), "cat")), "expected labels that are numbers .* number the classes"
    ),
    "None": (Made(lambda _: None), r"Made: example \d+, None cannot be made into a batch"),
    "None once": (at(5, lambda: None), r"and example 5, None, cannot be made into a batch"),
    "a dict": (
        Made(named), r"example 0, a dict with 'image', 'label': .*keys=\(input, label\)"
    ),
    "other keys": (StreamedSplit(Made(named), keys=("x", "y")), "has no 'x' or 'y'"),
    "shapes": (
        at(5, lambda: (torch.ones(3, 9, 8), 1)),
        r"\(3, 9, 8\) float32, int, cannot be made into a batch .*equal size",
    ),
    "an image without a shape": (Made(lambda i: (object(), i)), "a tuple of object, int cannot be"),
    "pixels": (Made(lambda i: (np.ones((3, 8, 8)), i % 4)), r"\(4, 3, 8, 8\) float64"),
    "an error": (at(5, lost), r"Made: example 5 of 12 cannot be read, line \d+ of test_dataset_f"),
    "a length that lies": (Made(short), r"example \d+ of 12 cannot be read.*IndexError"),
    "no labels": (Made(image), "expected one tensor of labels, found None"),
    "several labels": (
        Made(lambda i: (image(i), 0, 1)), r"labels, found a list of \(4,\) int64, \(4,\) int64"
    ),
    "a label too many": (at(5, lambda: (image(5), 4)), r"labels must lie in 0\.\.3.*found \d to 4"),
    "NaN": (at(5, lambda: (image(5) * float("nan"), 1)), "training stopped: the loss became nan"),
    "a NaN for a target": (
        Made(lambda i: (image(i), torch.full((4,), float("nan")))), "labels must be numbers, found NaN"
    ),
    "a collate_fn of fewer": (
        StreamedSplit(Made(labelled), collate_fn=lambda _: (torch.ones(1, 3, 8, 8), torch.ones(1))),
        r"expected inputs of 4 examples from the collate_fn, found \(1, 3, 8, 8\)",
    ),
    "a label per batch": (
        StreamedSplit(
            Made(labelled), collate_fn=lambda e: (torch.stack([x for x, _ in e]), torch.ones(()))
        ),
        r"expected labels of 4 examples from the collate_fn, found \(\) float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_that_cannot_be_trained_on_is_named(name: str, num_workers: int) -> None:
    data, message = EXAMPLES[name]
    if isinstance(data, Made):
        data = StreamedSplit(data, num_workers=num_workers)
    elif num_workers:
        return
    with pytest.raises(CompressionError, match=message):
        fit(mlp(), data, ONE)


def test_a_teacher_s_labels_are_looked_at_in_each_batch() -> None:
    for data, message in (
        (at(11, lambda: (image(5), 9)), "found 0 to 9|found . to 9"),
        (Made(lambda i: (image(i), {"a": 1})), "expected one tensor of labels, found a dict"),
    ):
        with pytest.raises(CompressionError, match=message):
            distill(mlp(), mlp(1), data, ONE)


SOURCES: dict[str, tuple[Callable[[], Any], str]] = {
    "an empty dataset": (lambda: Made(labelled, 0), "Made holds no example: its __len__ is 0"),
    "a length below 0": (lambda: Made(labelled, -1), "expected a Dataset with a length .*ValueErr"),
    "a length that is none": (lambda: Made(labelled, 1.5), "with a length .*TypeError"),
    "no length": (NoLength, "NoLength: expected a Dataset with a length"),
    "a stream": (lambda: Stream(Made(labelled)), "without an example at an index.*give it __len__"),
    "a loader of a stream": (lambda: DataLoader(Stream(Made(labelled)), 4), "Stream is an Iterable"),
    "a loader without batches": (lambda: DataLoader(Made(labelled), None), "has batch_size None"),
    "a loader of some": (
        lambda: DataLoader(Made(labelled), sampler=SubsetRandomSampler([1, 2])),
        "has a SubsetRandomSampler of its own.*Subset of the examples",
    ),
    "a loader of weights": (
        lambda: DataLoader(Made(labelled), sampler=WeightedRandomSampler([1.0] * 12, 12)),
        "has a WeightedRandomSampler of its own",
    ),
    "a loader of the first": (
        lambda: DataLoader(Made(labelled), sampler=SequentialSampler(range(4))),
        "has a SequentialSampler of its own",
    ),
    "batches of its own": (
        lambda: DataLoader(Made(labelled), batch_sampler=[[0, 1], [2]]), "has a list of its own"
    ),
    "tensors in a list": (lambda: [torch.ones(2), torch.ones(2)], "expected a Split, a StreamedSp"),
    "a tensor": (lambda: torch.ones(3, 3), r"expected a Split.*found \(3, 3\) float32"),
    "a text": (lambda: StreamedSplit("abc"), "expected a Dataset with __len__ .* found str"),
    "workers below 0": (lambda: StreamedSplit(Made(labelled), num_workers=-1), "0 or more, found -1"),
    "one key": (lambda: StreamedSplit(Made(labelled), keys="x"), "keys must be a pair .*found 'x'"),
    "another option": (
        lambda: StreamedSplit(Made(labelled), loading={"shuffle": True}), "loading takes .*, found shuf"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_what_no_training_can_read_is_refused_before_it(name: str) -> None:
    build, message = SOURCES[name]
    model = mlp()
    before = state(model)
    with pytest.raises(CompressionError, match=message):
        fit(model, build(), ONE)
    assert not changed(model, before)


def test_a_sampler_in_order_of_our_own_batches_is_taken() -> None:
    batches = BatchSampler(SequentialSampler(range(12)), 5, drop_last=True)
    assert len(as_split(DataLoader(Made(labelled), batch_size=5, shuffle=True))) == 12
    own: DataLoader[Any] = DataLoader(Made(labelled), batch_sampler=batches)
    assert len(predict(mlp(), own)) == 10


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_and_calibration_name_what_they_cannot_read(num_workers: int) -> None:
    model, workers = residual(), {"num_workers": num_workers, "batch_size": 4}
    gone: DataLoader[Any] = DataLoader(at(5, lost), **workers)
    for work in (predict, correct_images, quantize_static):
        with pytest.raises(CompressionError, match=r"Made: example 5 of 12 cannot be read, line"):
            work(model, gone)
        with pytest.raises(CompressionError, match="Stream: batch 2 cannot be read: KeyError"):
            work(model, DataLoader(Stream(at(5, lost)), **workers))
        with pytest.raises(CompressionError, match="has batch_size None"):
            work(model, DataLoader(Made(labelled), batch_size=None))
        with pytest.raises(UnsupportedTypeError, match="Stream: batch 1, a list of str, str, str"):
            work(model, DataLoader(Stream(Made(lambda _: "cat", 4)), **workers))


def test_evaluation_without_images_or_labels_is_named() -> None:
    with pytest.raises(CompressionError, match="expected images to predict, found none"):
        predict(mlp(), Stream([]))
    with pytest.raises(CompressionError, match="calibration set is empty"):
        quantize_static(residual(), Stream([]))
    model = mlp().train()
    with pytest.raises(
        CompressionError, match=r"a label for each choice .* found labels None"
    ) as told:
        correct_images(model, Made(image))
    assert told.tb
    assert model.training, "while somebody still holds the traceback"
    with pytest.raises(CompressionError, match="outputs of calibration inputs are NaN"):
        quantize_static(residual(), Made(lambda i: (image(i) * float("nan"), 1)))


def test_answers_of_other_shapes_in_another_batch_are_named() -> None:
    sizes = Made(lambda i: torch.ones(3, 8, 8 if i < 8 else 9))
    with pytest.raises(
        CompressionError, match=r"one shape .*\(4, 5, 8, 9\) float32 after \(8, 5, 8, 8"
    ):
        predict(nn.Conv2d(3, 5, 1), DataLoader(sizes, batch_size=4))


def test_a_worker_that_ends_is_named() -> None:
    data = StreamedSplit(at(5, exit_worker), num_workers=1)
    with pytest.raises(
        CompressionError, match=r"Made: its 1 workers cannot read it .*num_workers=0"
    ):
        list(data.read([torch.arange(12)]))


def exit_worker() -> None:
    import os

    os._exit(1)
