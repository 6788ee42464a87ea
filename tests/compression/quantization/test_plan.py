"""What a plan decides before any range is known, and that nothing is planned twice."""

import pytest
import torch
from torch import fx, nn

from compression.errors import UnsupportedTypeError
from compression.graph import fold_batch_norm
from compression.quantization import qat, quantize_aware, quantize_static, static
from compression.quantization.build import build_network
from compression.quantization.graph import plan_network
from compression.quantization.plan import Alias, Input, Join, Layer, Mean, Output, Plan, Return
from tests.support.functional import Net
from tests.support.nets import RECIPE, images, residual, split


def test_an_addition_and_a_clamp_are_taken_into_the_layer_before() -> None:
    plan = plan_network(fold_batch_norm(residual()))
    layers = {item.name: item for item in plan.items if isinstance(item, Layer)}
    assert list(layers) == ["conv1", "conv2", "fc"]
    assert [node.name for node in layers["conv2"].inputs] == ["relu", "relu"]
    # The input, ReLU after conv1, ReLU6 after the sum after conv2, the concatenation, the mean.
    assert list(plan.rounded) == ["x", "relu", "relu6", "cat", "adaptive_avg_pool2d"]
    assert {plan.codes.get(layers[name].node) for name in layers} == {"relu", "relu6", None}
    kinds = [type(item) for item in plan.items]
    assert kinds[0] is Input
    assert kinds[-2:] == [Output, Return]
    assert (kinds.count(Join), kinds.count(Mean)) == (1, 1)  # the addition is no item of its own
    aliases = {item.node.name for item in plan.items if isinstance(item, Alias)}
    assert aliases >= {"relu", "add", "relu6", "drop"}


def test_a_layer_called_twice_has_two_names_and_ranges() -> None:
    net = Net(lambda s, x: s.a(s.a(x)).flatten(1), a=nn.Conv2d(3, 3, 1))
    plan = plan_network(fold_batch_norm(net))
    assert [i.name for i in plan.items if isinstance(i, Layer)] == ["a", "a_again"]
    assert list(plan.rounded) == ["x", "a", "a_1"]


def test_one_plan_is_built_more_than_once_alike() -> None:
    plan = plan_network(fold_batch_norm(residual()))
    first, second = (build_network(plan, plan.qparams(None)) for _ in range(2))
    assert first.code == second.code
    assert torch.equal(first(images()), second(images()))


@pytest.mark.parametrize("module", [static, qat])
def test_a_network_is_planned_before_calibration(module, monkeypatch) -> None:
    """When its graph is tried, then as it is observed; and after training, which changes constants."""
    events = []
    plan, observe = module.plan_network, module.observe

    def counted_plan(folded: fx.GraphModule, **options: bool) -> Plan:
        events.append("plan")
        return plan(folded, **options)

    def counted_observe(*args, **options):
        events.append("observe")
        return observe(*args, **options)

    monkeypatch.setattr(module, "plan_network", counted_plan)
    monkeypatch.setattr(module, "observe", counted_observe)
    if module is static:
        quantize_static(residual(), images())
    else:
        quantize_aware(residual(), split(), RECIPE, images())
    assert events == (
        ["plan", "plan", "observe"] if module is static else ["plan", "observe", "plan"]
    )


def test_an_unknown_operator_is_refused_before_calibration(monkeypatch) -> None:
    net = Net(lambda s, x: s.a(x).cumsum(1), a=nn.Conv2d(3, 3, 1))
    monkeypatch.setattr(static, "observe", lambda *_, **__: pytest.fail("calibrated first"))
    with pytest.raises(UnsupportedTypeError, match="does not know the operator cumsum"):
        quantize_static(net, images())
