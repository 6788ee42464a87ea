"""Lines that set weights as training, pruning and accidents leave them."""

from tests.support.builder import Builder

# What happens to a layer: (lines, the feature's name). {n} is the layer, {i} an output channel.
EVENTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("net.{n}.weight{at} = 0",), "dead filter"),
    (("net.{n}.weight{at} = 0", "net.{n}.bias[{i}] = 0.5"), "dead filter"),
    (("net.{n}.weight{at} = 0", "net.{n}.bias[{i}] = 1e-6"), "dead filter"),
    (("net.{n}.weight{at} = 0", "net.{n}.bias[{i}] = 50.0"), "dead filter"),
    (("net.{n}.weight{at} *= 1e-6",), "tiny filter"),
    (("net.{n}.weight{at} *= 100",), "large filter"),
    (("net.{n}.bias.fill_(-100.0)",), "dead layer"),
    (("net.{n}.weight.zero_()",), "zero layer"),
    (("net.{n}.weight *= 1e-4",), "tiny layer"),
    (("net.{n}.weight *= 1e-12",), "tiny layer"),
    (("net.{n}.bias.normal_().mul_(1e-9)",), "tiny bias"),
    (("net.{n}.weight.abs_()",), "positive layer"),
    (("net.{n}.bias.normal_().mul_(10)",), "large bias"),
)


def set_weights(b: Builder) -> None:
    """Let something happen to one layer or two."""
    weighted = [n for n, made in b.layers.items() if made.startswith(("nn.Conv", "nn.Lin"))]
    if not weighted:
        return
    for _ in range(b.pick((0, 1, 1, 2))):
        name = b.pick(weighted)
        lines, feature = b.pick(EVENTS)
        layer = b.net.get_submodule(name)
        if layer.bias is None:
            lines = tuple(line for line in lines if ".bias" not in line)
        transposed = "Transpose" in b.layers[name]
        channel = b.pick((0, layer.weight.shape[1 if transposed else 0] - 1))
        at = f"[:, {channel}]" if transposed else f"[{channel}]"
        if lines:
            b.setup += [line.format(n=name, i=channel, at=at) for line in lines]
            b.features.add(feature)
