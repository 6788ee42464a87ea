"""Augmentation by its generator's draws, and normalization by mean and deviation."""

import torch
from torch.nn import functional as F

from benchmarks.baseline.data import Augment, Normalize


def test_augmentation_is_drawn_from_its_generator_and_keeps_dtype() -> None:
    images = torch.arange(4 * 3 * 32 * 32).view(4, 3, 32, 32).to(torch.uint8)
    augment = Augment(shift=4, degrees=10)
    a, b, c = (augment(images, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert a.dtype == torch.uint8
    assert a.shape == images.shape
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_shift_moves_whole_pixels() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    shifted = Augment(shift=4, flip=False)(images, torch.Generator().manual_seed(0))
    middle = shifted[0, :, 10:20, 10:20]
    assert any(
        torch.equal(middle, images[0, :, 10 + y : 20 + y, 10 + x : 20 + x])
        for y in range(-4, 5)
        for x in range(-4, 5)
    )


def plainly_augmented(
    images: torch.Tensor, augment: Augment, generator: torch.Generator
) -> torch.Tensor:
    """Return what Augment gave when it drew on the CPU alone, an image at a time."""
    count = len(images)
    rows, columns = torch.randint(0, 2 * augment.shift + 1, (2, count, 1), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5
    degrees = (torch.rand(count, generator=generator) * 2 - 1) * augment.degrees
    found = []
    for i, image in enumerate(images):
        padded = F.pad(image[None].float(), (augment.shift,) * 4, mode="reflect")[0]
        moved = padded[:, rows[i] : rows[i] + 32, columns[i] : columns[i] + 32]
        moved = moved.flip(2) if flips[i] else moved
        angle = torch.deg2rad(degrees[i : i + 1])
        theta = torch.stack([angle.cos(), -angle.sin(), 0 * angle])
        theta = torch.stack([theta, torch.stack([angle.sin(), angle.cos(), 0 * angle])])
        grid = F.affine_grid(theta.view(1, 2, 3), [1, 3, 32, 32], align_corners=False)
        rotated = F.grid_sample(moved[None], grid, padding_mode="reflection", align_corners=False)
        found.append(rotated[0].round().to(images.dtype))
    return torch.stack(found)


def test_the_draws_of_augmentation_are_what_they_were() -> None:
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    augment = Augment(shift=4, degrees=10)
    found = augment(images, torch.Generator().manual_seed(5))
    expected = plainly_augmented(images, augment, torch.Generator().manual_seed(5))
    assert (found.int() - expected.int()).abs().max() <= 1, "a draw elsewhere is another image"


def test_normalize_is_what_the_tensors_of_mean_and_std_give() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    prepare = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (prepare.mean, prepare.std))
    assert torch.equal(prepare(images), (images.float() / 255 - mean) / std)


def test_normalize_is_by_mean_and_std() -> None:
    images = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    inputs = Normalize((0.5, 0.0, 1.0), (0.5, 1.0, 2.0))(images)
    assert inputs[0, :, 0, 0].tolist() == [1.0, 1.0, 0.0]
