"""Students and teachers as other people wrote them: classifiers, segmentation, transformers."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import compression as c
from compression.distillation import Distillation
from tests.support.compared import untouched
from tests.support.training_nets import noise

torchvision = pytest.importorskip("torchvision", reason="the extra test installs it")

ONE = c.Recipe(epochs=1, batch_size=4, learning_rate=1e-3)


class Out(nn.Module):
    """Torchvision's segmentation networks return a dictionary."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)["out"]  # type: ignore[no-any-return]


def segmenting(backbone: Callable[..., nn.Module]) -> nn.Module:
    return Out(backbone(weights=None, weights_backbone=None, num_classes=5))


def transformer(width: int, depth: int) -> nn.Module:
    return torchvision.models.VisionTransformer(  # type: ignore[no-any-return]
        image_size=32, patch_size=8, num_layers=depth, num_heads=2, hidden_dim=width,
        mlp_dim=2 * width, num_classes=5,
    )  # fmt: skip


def encoder(width: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True)
    return nn.Sequential(
        nn.Embedding(11, width), nn.TransformerEncoder(layer, 2), nn.Flatten(),
        nn.Linear(7 * width, 5),
    )  # fmt: skip


MODELS = torchvision.models
IMAGES, SCENES = noise(8, 3, 48, 48), noise(4, 3, 32, 32, labels=(32, 32))
with_holes = SCENES.labels.masked_fill(torch.rand(4, 32, 32) < 0.2, -100)
BLOCK = "encoder.layers.encoder_layer_{}"
# student, teacher, images, layers, the axis of their channels
PAIRS: dict[
    str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], c.Split, dict[str, str], int]
]
PAIRS = {
    "residual": (
        lambda: MODELS.squeezenet1_1(num_classes=5), lambda: MODELS.resnet18(num_classes=5), IMAGES,
        {"features.2": "layer1", "features.7": "layer3"}, 1,
    ),
    "mobile": (
        lambda: MODELS.mobilenet_v3_small(num_classes=5),
        lambda: MODELS.shufflenet_v2_x0_5(num_classes=5), IMAGES,
        {"features.1": "maxpool", "features.12": "conv5"}, 1,
    ),
    "segmentation": (
        lambda: segmenting(MODELS.segmentation.lraspp_mobilenet_v3_large),
        lambda: segmenting(MODELS.segmentation.deeplabv3_mobilenet_v3_large),
        replace(SCENES, labels=with_holes),
        {"net.classifier.cbr": "net.classifier.3"}, 1,
    ),
    "vision transformer": (
        lambda: transformer(16, 2), lambda: transformer(32, 3), noise(8, 3, 32, 32),
        {BLOCK.format(1): BLOCK.format(2)}, -1,
    ),
    "tokens": (
        lambda: encoder(8), lambda: encoder(16),
        replace(noise(8, 7), images=torch.randint(0, 11, (8, 7))), {"1.layers.0": "1.layers.1"}, -1,
    ),
}  # fmt: skip
LOSSES: dict[str, Distillation] = {
    "hinton": c.Hinton(),
    "standardized": c.Standardized(),
    "decoupled": c.Decoupled(),
    "dist": c.Dist(),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_each_loss_trains_them(pair: str) -> None:
    make_student, make_teacher, train, layers, axis = PAIRS[pair]
    torch.manual_seed(0)
    student, teacher = make_student(), make_teacher().train()
    losses = {**LOSSES, "attention": c.AttentionTransfer(layers, axis=axis, logits=c.Dist())}
    before = {name: p.clone() for name, p in student.named_parameters()}
    for name, loss in losses.items():
        with untouched(student), untouched(teacher):
            learnt = c.distill(student, teacher, train, ONE, distillation=loss)
        after = dict(learnt.named_parameters())
        assert all(bool(torch.isfinite(p).all()) for p in after.values()), name
        assert any(not torch.equal(p, before[key]) for key, p in after.items()), name


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_learns_what_its_teacher_knows(name: str) -> None:
    """The labels are noise: what the student has of the teacher, the loss has taught."""
    torch.manual_seed(0)
    x = torch.randn(256, 6)
    teacher = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 5))
    with torch.no_grad():
        teacher[2].weight *= 6
        wanted = teacher(x).argmax(1)
    train = c.Split(x, torch.randint(0, 5, (256,)), prepare=lambda x: x)
    student = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 5))
    recipe = c.Recipe(epochs=30, batch_size=32, learning_rate=0.05)

    def agreement(net: nn.Module) -> float:
        return float((net(x).argmax(1) == wanted).float().mean())

    alone = c.distill(student, teacher, train, recipe, distillation=c.Hinton(alpha=0))
    learnt = c.distill(student, teacher, train, recipe, distillation=LOSSES[name])
    assert agreement(learnt) > agreement(alone) + 0.2
