"""Heads of torch's attention go: the network gives what zeros in their place give."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

import compression as c
from compression import Recipe, Split, left_out
from compression.accounting import count_macs
from compression.attention import Attention
from compression.channels import choose, cut, follow, kept_reasons, widths_of, zero
from compression.graph import trace
from compression.narrow import recorded_widths
from compression.removal import remove_channels
from compression.removal.latency import table_cost
from tests.support.attentive_nets import KEPT, LOST, TOKENS, WIDTH, Given, Masked, layer
from tests.support.compared import leaves
from tests.support.integer_nets import numbers
from tests.support.removed import assert_alike, check_cut, random_gone


def doubled(given: Given) -> Given:
    """Return a network in float64, no number of which is 0, and its inputs."""
    torch.manual_seed(0)
    model = given[0].eval().double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.uniform_(-1, 1)
    return model, tuple(x.double() for x in given[1])


def vit() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(16, 8, 2, 4, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads[0].weight)  # of 0 in a fresh one
    return model


def attentions(model: nn.Module) -> list[Attention]:
    return [m for m in model.modules() if isinstance(m, Attention)]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("name", LOST)
def test_heads_go(name: str) -> None:
    model, inputs = doubled(LOST[name]())
    others = tuple(torch.randn_like(x) for x in inputs)
    if name == "masked":
        others = others[0], inputs[1], torch.tensor([[0.0] * 5, [0.0] * 4 + [-torch.inf]]).double()
    assert check_cut(model, inputs, others, seed=1) < 1
    channels = follow(model, inputs)
    smaller = cut(model, channels, random_gone(channels, 1)[0])
    found = attentions(smaller)
    assert found
    assert any(m.num_heads < 4 for m in found)
    assert not any(isinstance(m, nn.MultiheadAttention) for m in smaller.modules())


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
@pytest.mark.parametrize("name", KEPT)
def test_heads_stay_that_cannot_be_followed(name: str) -> None:
    (model, inputs), reason = doubled(KEPT[name][0]()), KEPT[name][1]
    check_cut(model, inputs, tuple(torch.randn_like(x) for x in inputs))
    channels = follow(model, inputs)
    reasons = kept_reasons(channels) | channels.unknown
    assert any(reason in text for text in reasons.values()), reasons
    smaller = cut(model, channels, random_gone(channels, 1)[0])
    layers = zip(model.modules(), smaller.modules(), strict=False)
    heads = [[m.num_heads for m in pair] for pair in layers if hasattr(pair[0], "num_heads")]
    assert heads
    assert all(whole == left for whole, left in heads)


def test_training_computes_what_zeros_do() -> None:
    model, inputs = doubled(layer(dropout=0.0))
    channels = follow(model, inputs)
    gone, _ = random_gone(channels, 1)
    networks = [make(model, channels, gone).train() for make in (cut, zero)]
    assert_alike(*([network(*inputs).detach()] for network in networks))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("grad", [True, False])
def test_padding_of_an_encoder_that_had_nested_tensors(grad: bool) -> None:
    """Torch's fast path gives 0 at padded tokens, the other one numbers: they count nowhere."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Masked().body

        def forward(self, x: Tensor, padding: Tensor) -> Tensor:
            y: Tensor = self.body(x, src_key_padding_mask=padding)
            return y * ~padding.bool()[..., None]

    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    model, (x,) = doubled((Padded(), (numbers(*TOKENS),)))
    channels = follow(model, (x, padding))
    gone, _ = random_gone(channels, 0)
    smaller, zeroed = cut(model, channels, gone), zero(model, channels, gone)
    assert zeroed.body.use_nested_tensor
    assert not smaller.body.use_nested_tensor
    with torch.set_grad_enabled(grad):
        found, wanted = smaller(x, padding), zeroed(x, padding)
    assert_alike([found.detach()], [wanted.detach()])


def test_attention_whose_heads_stay_is_torchs() -> None:
    model, (x,) = doubled(layer())
    channels = follow(model, (x,))
    hidden = next(w for w in widths_of(channels) if len(w.units) == 16)
    gone = torch.zeros(len(channels.labels), dtype=torch.bool)
    gone[hidden.units[:3]] = True
    smaller = cut(model, channels, gone)
    assert smaller[0].linear1.out_features == 13
    assert type(smaller[0].self_attn) is nn.MultiheadAttention
    assert_alike([smaller(x).detach()], [zero(model, channels, gone)(x).detach()])


def test_the_weakest_head_goes() -> None:
    model, (x,) = layer()
    with torch.no_grad():
        model[0].self_attn.in_proj_weight.view(3, 4, 2, WIDTH)[:, 1] *= 0.01
    channels = follow(model, (x,))
    wanted = model[0].self_attn.in_proj_weight.view(3, 4, -1)[0, [0, 2, 3]].flatten()
    for criterion in ("l1", "l2"):
        smaller: Any = remove_channels(
            model, x, macs=0.9, multiple_of=1, criterion=criterion, at_least=0.7
        )
        assert torch.equal(smaller[0].self_attn.q_proj.weight.flatten(), wanted)
    assert len(channels.pairs) == 2


@pytest.mark.parametrize("criterion", ["l1", "l2", "fpgm", "taylor", "random"])
def test_each_criterion_reaches_its_budget(criterion: Any) -> None:
    model, x = vit(), torch.randn(2, 3, 16, 16)
    batches = [(x, torch.tensor([0, 1]))]
    smaller = remove_channels(
        model, x, macs=0.6, criterion=criterion, batches=batches, multiple_of=1
    )
    assert attentions(smaller)
    assert count_macs(smaller, x) <= 0.6 * count_macs(model, x)
    kept = left_out(smaller)
    assert "encoder.layers.encoder_layer_0.self_attention.out_proj.weight" in kept


def test_widths_are_multiples_of_channels_of_whole_heads() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(48, 12, 48), nn.Linear(48, 3))
    x = torch.randn(3, 2, 48)
    widths = widths_of(channels := follow(model, (x,)))
    assert [(len(w.units), w.step(channels, 16)) for w in widths] == [(12, 4), (48, 16)]
    single = nn.Sequential(nn.TransformerEncoderLayer(48, 3, 48), nn.Linear(48, 3))
    widths = widths_of(channels := follow(single, (x,)))
    assert [(len(w.units), w.step(channels, 16)) for w in widths] == [(3, 1), (48, 16)]


def test_a_head_counts_as_its_channels() -> None:
    """Else one head of many channels would be dear beside one hidden channel, and none would go."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(64, 8, 256), nn.Linear(64, 3)).eval()
    x = torch.randn(9, 2, 64)
    widths = widths_of(channels := follow(model, (x,)))
    assert [width.channels(channels) for width in widths] == [8, 1]
    smaller: Any = remove_channels(model, x, macs=0.4)
    assert 2 <= smaller[0].self_attn.num_heads <= 6
    assert 32 <= smaller[0].linear1.out_features <= 192


def test_milliseconds_are_a_budget_too() -> None:
    x = torch.randn(2, 3, 16, 16)
    choice = choose(vit(), x, multiple_of=1)
    cost = table_cost(choice, lambda network, _: network)
    whole = [len(width.units) for width in choice.widths]
    assert cost.of([1] * len(whole)) > 0
    assert len(cost.terms) == len(choice.channels.products) == 1 + 2 * 6 + 1


def test_channels_go_again() -> None:
    model, x = vit().double(), torch.randn(2, 3, 16, 16).double()
    once = remove_channels(model, x, macs=0.75, multiple_of=1)
    assert attentions(once)
    assert check_cut(once, (x,), (torch.randn_like(x),), seed=1) < 1
    again = remove_channels(once, x, macs=0.85, multiple_of=1)
    assert count_macs(again, x) <= 0.85 * count_macs(once, x)
    stack, (tokens,) = doubled(layer())
    once = remove_channels(stack, tokens, macs=0.6, multiple_of=1)
    assert attentions(once)
    assert check_cut(once, (tokens,), (torch.randn_like(tokens),), seed=1) < 1


def test_a_mask_keeps_the_channels_that_it_is_made_of() -> None:
    model, inputs = doubled(LOST["a mask of channels, which stay"]())
    reasons = kept_reasons(follow(model, inputs))
    assert "a mask is made of its channels" in reasons["five.weight"]


SPLIT = Split(torch.randn(8, 3, 16, 16), torch.arange(8) % 5, prepare=lambda x: x)
RECIPE = Recipe(epochs=1, batch_size=4, learning_rate=1e-3)
VERBS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "copy": copy.deepcopy,
    "cast": lambda m: c.cast(m, torch.bfloat16),
    "dynamic": c.quantize_dynamic,
    "weights": lambda m: c.quantize_weights(m, num_bits=4),
    "pruned": lambda m: c.prune_l1_unstructured(m, amount=0.5),
    "pruned together": lambda m: c.prune_l1_global(m, amount=0.5),
    "pruned filters": lambda m: c.prune_ln_structured(m, amount=0.25),
    "pruned by 2 of 4": c.prune_n_of_m,
    "shared": lambda m: c.share_weights(m, num_clusters=16),
    "rounded": c.round_vectors,
    "tuned": lambda m: c.fine_tune(m, SPLIT, RECIPE),
    "traced": trace,
}


@pytest.mark.parametrize("name", VERBS)
def test_other_verbs_take_it(name: str, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 16, 16)
    smaller = remove_channels(vit(), x, macs=0.6, multiple_of=1)
    assert attentions(smaller)
    made = VERBS[name](smaller).eval()
    assert leaves(made(x))[0].shape == (2, 5)
    if name in ("dynamic", "weights", "pruned", "pruned together", "shared"):
        assert not any("self_attention" in left for left in c.left_out(made))
    torch.save(made, tmp_path / "whole")
    again = torch.load(tmp_path / "whole", weights_only=False)
    assert torch.equal(leaves(again(x))[0], leaves(made(x))[0])
    if name != "traced":
        c.save(made, tmp_path / "model")
        again = c.load(tmp_path / "model", vit)
        assert torch.equal(leaves(again.eval()(x))[0], leaves(made(x))[0])
        names = {name.removeprefix("network.") for name in recorded_widths(again)}
        assert names == set(recorded_widths(smaller))
