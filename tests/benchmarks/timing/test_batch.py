"""A batch holds real images, from the first again where they end."""

import pytest
import torch

from benchmarks.timing.batch import repeat_images
from compression.errors import CompressionError
from tests.support.nets import split


@pytest.mark.parametrize("count", [1, 5, 16, 17, 40])
def test_a_batch_is_the_images_from_the_first_again_where_they_end(count: int) -> None:
    images = split(16)
    batch = repeat_images(images, count)
    assert len(batch) == count
    for i in range(count):
        assert torch.equal(batch.images[i], images.images[i % 16])
        assert batch.labels[i] == images.labels[i % 16]


def test_a_batch_that_fits_is_the_slice_to_the_bit() -> None:
    images = split(16)
    assert torch.equal(repeat_images(images, 8).inputs(slice(None)), images.inputs(slice(0, 8)))


@pytest.mark.parametrize("count", [0, -1])
def test_no_image_is_no_batch(count: int) -> None:
    with pytest.raises(CompressionError, match=f"at least 1 image, found {count}"):
        repeat_images(split(4), count)
