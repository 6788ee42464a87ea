"""A Dataset or DataLoader in place of tensors: the same numbers bit for bit, in no more memory."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import ConcatDataset, DataLoader, Subset, TensorDataset, default_collate
from torchvision.models import mobilenet_v2

from benchmarks.baseline.data import Augment
from benchmarks.machine.memory import PeakMemory
from compression import (
    StreamedSplit,
    deploy,
    distill,
    explain,
    fine_tune,
    learn_pruned,
    prune_gradually,
    prune_iteratively,
    prune_l1_global,
    quantize_aware,
    quantize_static,
    recalibrate_batch_norm,
    remove_channels,
    remove_channels_softly,
    sparsity,
)
from compression.training import Recipe, as_split, correct_images, fit, input_batches, predict
from compression.training.batches import batches
from tests.support.datasets import Made, Stream, held, image, jittered, labelled, stored
from tests.support.nets import RECIPE, mlp, residual, split
from tests.support.steps import PLAIN, pictures
from tests.support.training_nets import ONE, state

CPU = torch.device("cpu")
# One core is enough for two workers here; with threads Python 3.12 warns of every fork.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create", "ignore:.*multi-threaded, use of fork"
)


def trained(data: Any, recipe: Recipe = PLAIN, **options: Any) -> dict[str, Tensor]:
    model = residual()
    fit(model, data, recipe, **options)
    return model.state_dict()


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_dataset_trains_as_its_tensors_do(num_workers: int) -> None:
    tensors, recipe = pictures(50), replace(PLAIN, cutout=4, views=2)
    streamed = StreamedSplit(
        held(tensors), prepare=tensors.prepare, augment=tensors.augment, num_workers=num_workers
    )
    expected, model = trained(tensors, recipe), residual()
    before = torch.get_rng_state()
    fit(model, streamed, recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(model.state_dict(), expected)


def test_a_dataset_and_a_loader_train_alike_by_the_recipe_s_order_and_batches() -> None:
    tensors, dataset = stored(), Made(labelled)
    expected = trained(tensors, RECIPE)
    for data in (dataset, DataLoader(dataset, batch_size=5, shuffle=True, drop_last=True)):
        assert_equal(trained(data, RECIPE), expected)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_what_a_dataset_draws_is_the_same_for_any_number_of_workers(num_workers: int) -> None:
    dataset = Made(jittered)
    own, other = (StreamedSplit(dataset, num_workers=n) for n in (0, num_workers))
    epochs = [
        [torch.cat([x for x, _ in batches(data, replace(ONE, seed=seed), epoch, CPU)])
         for data in (own, other)]
        for epoch, seed in ((0, 0), (1, 0), (0, 1))
    ]  # fmt: skip
    for mine, theirs in epochs:
        assert torch.equal(mine, theirs)
    firsts = [mine.sum().item() for mine, _ in epochs]
    assert len(set(firsts)) == 3, "other draws in another epoch, and by another seed"
    noise = own.at(slice(0, 12))[0] - torch.stack([image(i) for i in range(12)])
    assert len({round(x, 3) for x in noise.mean((1, 2, 3)).tolist()}) == 12, "one draw per example"


def test_a_collate_fn_that_mixes_images_draws_the_same_in_a_worker() -> None:
    def mix(examples: list[Any]) -> Any:
        images, labels = default_collate(examples)
        share = torch.rand(())
        targets = F.one_hot(labels, 4).float()
        return images.lerp(images.roll(1, 0), share), targets.lerp(targets.roll(1, 0), share)

    results = [
        trained(StreamedSplit(Made(labelled), collate_fn=mix, num_workers=n), ONE) for n in (0, 1)
    ]
    assert_equal(*results)


def test_a_training_goes_on_with_the_same_batches() -> None:
    states: list[Any] = []
    data = StreamedSplit(Made(jittered), augment=Augment(shift=1))
    whole = trained(data, RECIPE, on_epoch=lambda report: states.append(report.state()))
    first = torch.load(_saved(states[0]), weights_only=True)
    # The model of a state is the network's own, which trained on: a run of one epoch gives the first.
    model = residual()

    def stop(report: Any) -> None:
        first.update(
            model=state(model), **{k: v for k, v in report.state().items() if k != "model"}
        )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data, RECIPE, on_epoch=stop)
    assert_equal(trained(data, RECIPE, resume_from=first), whole)


def _saved(given: Any) -> Any:
    from io import BytesIO

    buffer = BytesIO()
    torch.save(given, buffer)
    buffer.seek(0)
    return buffer


EVALUATED: dict[str, Callable[[], Any]] = {
    "dataset": lambda: Made(labelled),
    "subset": lambda: Subset(Made(labelled, 99), range(12)),
    "loader": lambda: DataLoader(Made(labelled), batch_size=12),
    "two workers": lambda: DataLoader(Made(labelled), batch_size=12, num_workers=2),
    "stream": lambda: Stream(Made(labelled)),
    "loader of a stream": lambda: DataLoader(Stream(Made(labelled)), batch_size=12),
    "ready batches": lambda: DataLoader(Stream([tuple(stored().at(slice(12)))]), batch_size=None),
    "dicts": lambda: StreamedSplit(
        [dict(zip("xy", labelled(i), strict=True)) for i in range(12)], keys=("x", "y")
    ),
}


@pytest.mark.parametrize("name", EVALUATED)
def test_evaluation_and_calibration_take_it(name: str) -> None:
    model, tensors = residual(), stored()
    build = EVALUATED[name]
    assert torch.equal(predict(model, build()), predict(model, tensors))
    assert torch.equal(correct_images(model, build()), correct_images(model, tensors))
    small = quantize_static(model, build())
    assert_equal(small.state_dict(), quantize_static(model, tensors.images).state_dict())
    again = recalibrate_batch_norm(model, build())
    assert_equal(again.state_dict(), recalibrate_batch_norm(model, tensors.images).state_dict())


def test_a_loader_is_evaluated_in_its_own_order_and_images_need_no_labels() -> None:
    model, order = mlp(), [5, 3, 0, 7]
    loader: DataLoader[Any] = DataLoader(Made(labelled), batch_size=3, sampler=order)
    expected = predict(model, stored())[order]
    torch.testing.assert_close(predict(model, loader), expected)
    assert len(correct_images(model, loader)) == 4
    assert torch.equal(predict(model, Made(image)), predict(model, stored()))
    assert torch.equal(predict(model, TensorDataset(stored().images)), predict(model, stored()))


def test_an_example_s_first_image_stands_for_it() -> None:
    model, dataset = residual(), Made(labelled)
    first = image(0).unsqueeze(0)
    found = remove_channels(model, dataset, macs=0.5, multiple_of=1)
    assert_equal(
        found.state_dict(), remove_channels(model, first, macs=0.5, multiple_of=1).state_dict()
    )
    options: dict[str, Any] = {"macs": 0.5, "criterion": "taylor", "multiple_of": 1}
    by_taylor = remove_channels(model, dataset, batches=dataset, **options)
    pairs = [tuple(stored().at(slice(12)))]
    assert_equal(
        by_taylor.state_dict(), remove_channels(model, first, batches=pairs, **options).state_dict()
    )
    assert str(explain(model, dataset)) == str(explain(model, first))
    small = quantize_static(model, dataset)
    assert deploy(small, DataLoader(dataset, batch_size=4))(stored().images).shape == (12, 4)


def test_every_training_takes_a_dataset() -> None:
    data, model, recipe = Made(jittered, 16), residual(), replace(RECIPE, views=1)
    asked: list[int] = []
    teacher = residual(1)
    teacher.register_forward_hook(lambda *_: asked.append(1))
    distill(model, teacher, data, recipe)
    assert len(asked) == 1, (
        "an epoch that comes again has the same inputs, of which it answered once"
    )
    pruned = prune_l1_global(model, amount=0.5)
    assert sparsity(fine_tune(pruned, data, RECIPE, teacher=model)) == pytest.approx(0.5, abs=0.01)
    for schedule in (prune_gradually, prune_iteratively, learn_pruned):
        options: dict[str, Any] = {
            prune_gradually: {"every": 1}, prune_iteratively: {"rounds": 2}, learn_pruned: {"steps": 1}
        }[schedule]  # fmt: skip
        found = schedule(model, data, replace(RECIPE, batch_size=4), amount=0.5, **options)
        assert sparsity(found) == pytest.approx(0.5, abs=0.01)
    softly = remove_channels_softly(model, data, data, RECIPE, macs=0.5, multiple_of=1)
    assert predict(softly, data).shape == (16, 4)


def test_mobilenet_is_trained_calibrated_and_evaluated_with_one_dataset() -> None:
    torch.manual_seed(0)
    model, recipe = mobilenet_v2(num_classes=4, width_mult=0.25), replace(ONE, batch_size=8)
    data = Made(labelled, 16)
    small = quantize_aware(model.eval(), data, recipe, DataLoader(data, batch_size=8))
    tensors = stored(16)
    same = quantize_aware(model, tensors, recipe, list(tensors.images.split(8)))
    assert_equal(small.state_dict(), same.state_dict())
    assert len(correct_images(small, data)) == 16


def test_labels_may_be_of_any_structure_for_a_loss_of_one_s_own() -> None:
    data = Made(lambda i: (image(i), {"class": i % 4, "place": [torch.ones(2), i]}))
    seen: list[Any] = []

    def loss(logits: Tensor, labels: Any, _: Tensor) -> Tensor:
        seen.append(labels)
        return F.cross_entropy(logits, labels["class"])

    assert_equal(trained(data, ONE, loss=loss), trained(Made(labelled), ONE))
    assert seen[0]["place"][0].shape == (4, 2)
    autoencoder = nn.Conv2d(3, 3, 1)
    before = state(autoencoder)
    fit(autoencoder, Made(image), ONE, loss=lambda out, _, x: F.mse_loss(out, x))
    assert not torch.equal(autoencoder.weight, before["weight"])


def test_a_split_of_a_split_and_a_device() -> None:
    data = StreamedSplit(Made(labelled))
    assert len(data.take(5)) == 5
    assert data.take(99) is data.take(None) is data
    images, labels = data.select(torch.tensor([7, 2])).at(slice(None))
    assert torch.equal(images, torch.stack([image(7), image(2)]))
    assert labels.tolist() == [3, 2]
    assert as_split(data) is data
    assert len(data.to("meta").inputs(slice(0, 3))) == 3
    assert data.to("meta").inputs(slice(0, 3)).device.type == "meta"
    assert [len(x) for x in input_batches(split(100))] == [64, 36]


def test_streaming_needs_no_more_memory_than_a_few_batches() -> None:
    """1,500 images of 48 KiB are 72 MiB; a batch of 16 is 0.75, one of 50 is 2.3."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))
    images = Made(lambda i: (torch.full((3, 64, 64), i / 1500), i % 4), 1500)
    recipe = replace(ONE, batch_size=16, learning_rate=1e-4)
    fit(model, Subset(images, range(64)), recipe)  # what a first step allocates for good
    with PeakMemory(CPU) as peak:
        fit(model, images, recipe)
        assert len(correct_images(model, ConcatDataset([images] * 4))) == 6000
        quantize_static(model, images)
    if peak.peak_bytes is not None:
        assert peak.peak_bytes < 24 * 2**20
