"""Networks of other tasks: what they take of images, and all that they give."""

import pytest
import torch

from benchmarks.peers import networks
from benchmarks.peers.tasks import TASKS
from benchmarks.peers.worker import in_rows

NUMBERS = {
    "lraspp_mobilenet_v3_large": 21 * 224**2,
    "fcn_resnet50": 21 * 224**2,
    "detector": 75 * (28**2 + 14**2 + 7**2),
    "unet": 2 * 224**2,
    "signals": 10,
    "clips": 10,
    "encoder": 10,
}
"""What an image's outputs have, all together."""


@pytest.mark.parametrize("name", TASKS)
def test_a_task_takes_images_and_gives_all_its_outputs(name: str) -> None:
    images = torch.rand(2, 3, 224, 224)
    images[1, :, 50:] += 2
    network = networks.network(name).eval()
    with torch.no_grad():
        outputs = in_rows(network(networks.inputs(name, images)))
        one = in_rows(network(networks.inputs(name, images[1:])))
    assert outputs.shape == (2, NUMBERS[name])
    assert torch.allclose(outputs[1:], one, atol=1e-4)
    assert not torch.allclose(outputs[:1], one, atol=1e-3), "what an image gives depends on it"
