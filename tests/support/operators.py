"""Lines of activations and arithmetic."""

from tests.support.builder import Builder, Value

ACTIVATIONS = (
    "F.relu({v})",
    "torch.relu({v})",
    "{v}.relu()",
    "F.relu6({v})",
    "torch.clamp({v}, min=0)",
    "{v}.clamp(min=0)",
    "{v}.clamp(0, 6)",
    "{v}.clamp(-1, 1)",
    "{v}.clamp(max=0.5)",
    "torch.clamp({v}, 0.0, 1.0)",
    "F.hardtanh({v}, 0.0, 6.0)",
    "F.hardtanh({v})",
)
ACTIVATIONS_IN_PLACE = (
    "F.relu({v}, inplace=True)",
    "{v}.relu_()",
    "torch.relu_({v})",
    "{v}.clamp_(min=0)",
    "{v}.clamp_(0, 1)",
    "F.relu6({v}, inplace=True)",
)
LAYERS = ("nn.ReLU()", "nn.ReLU6()", "nn.Hardtanh(0.0, 6.0)", "nn.Hardtanh()")
LAYERS_IN_PLACE = ("nn.ReLU(inplace=True)", "nn.ReLU6(inplace=True)")
NUMBERS = (
    "{v} + 1.0",
    "1.0 + {v}",
    "{v} + 1",
    "{v} - 0.5",
    "{v} * 2.0",
    "0.5 * {v}",
    "{v} / 2",
    "torch.add({v}, 0.25)",
)
FUNCTIONS = (
    "F.silu({v})",
    "F.hardswish({v})",
    "torch.sigmoid({v})",
    "{v}.sigmoid()",
    "F.hardsigmoid({v})",
    "F.gelu({v})",
    "F.gelu({v}, approximate='tanh')",
    "torch.tanh({v})",
    "F.leaky_relu({v}, 0.1)",
    "F.elu({v})",
    "F.softplus({v})",
    "F.mish({v})",
)
FUNCTION_LAYERS = (
    "nn.SiLU()", "nn.Hardswish()", "nn.Sigmoid()", "nn.Hardsigmoid()", "nn.GELU()", "nn.Tanh()",
    "nn.LeakyReLU(0.2)", "nn.ELU()", "nn.Softplus()", "nn.Mish()",
)  # fmt: skip
NOTHING = (
    "nn.Identity()",
    "nn.Dropout(0.5)",
    "nn.Dropout2d(0.5)",
    "{v}.contiguous()",
    "F.dropout({v}, training=self.training)",
)
SUMS = (
    "{v} + {w}",
    "torch.add({v}, {w})",
    "{v}.add({w})",
)
SUMS_IN_PLACE = ("{v}.add_({w})", "{v}.__iadd__({w})")


def activation(b: Builder) -> Value | None:
    """A ReLU or a clamp, as a module or a function."""
    v = b.value()
    assert v is not None
    if b.pick((True, False)):
        return b.add(b.pick(ACTIVATIONS).format(v=v.name), v)
    found: Value | None = b.add(f"{b.layer('act', b.pick(LAYERS))}({v.name})", v)
    return found


def function(b: Builder) -> Value | None:
    """A smooth function of single numbers, as a module or a function."""
    v = b.value()
    assert v is not None
    b.features.add("function")
    if b.pick((True, False)):
        return b.add(b.pick(FUNCTIONS).format(v=v.name), v)
    return b.add(f"{b.layer('function', b.pick(FUNCTION_LAYERS))}({v.name})", v)


def product(b: Builder) -> Value | None:
    """A product of two values of one shape, or by a number per channel (squeeze and excite)."""
    v = b.value()
    assert v is not None
    b.features.add("product")
    if v.ndim == 4 and b.pick((True, False)):
        gate = b.add(f"torch.sigmoid({v.name}.mean((2, 3), keepdim=True))", v)
        if gate is None:
            return None
        return b.add(b.pick(("{v} * {w}", "{w} * {v}")).format(v=v.name, w=gate.name), v, gate)
    w = b.pick([w for w in b.values if w.shape == v.shape])
    text = b.pick(("{v} * {w}", "torch.mul({v}, {w})", "{v}.mul({w})"))
    return b.add(text.format(v=v.name, w=w.name), v, w)


def parts(b: Builder) -> Value | None:
    """A part of a value that is split along its channels."""
    v = b.value()
    if v is None or v.shape[0] < 2:
        return None
    half = v.shape[0] // 2
    b.features.add("split")
    text = b.pick((
        "{v}.chunk(2, 1)[1]", "torch.chunk({v}, 2, dim=1)[0]", "{v}.split({h}, 1)[1]",
        "torch.split({v}, [{h}, {r}], dim=1)[0]", "{v}[:, {h}:]", "{v}.flip(1)", "{v}.roll(1, 1)",
    ))  # fmt: skip
    return b.add(text.format(v=v.name, h=half, r=v.shape[0] - half), v)


def spread(b: Builder) -> Value | None:
    """Nearest interpolation, a shuffle of channels or of pixels."""
    v = b.value(4)
    if v is None:
        return None
    channels, height, width = v.shape
    b.features.add("spread")
    texts = ["F.interpolate({v}, scale_factor=2)"]
    if channels % 2 == 0:
        texts += ["F.channel_shuffle({v}, 2)"]
        size = f"{v.name}.shape[0], 2, {channels // 2}, {height}, {width}"
        texts += [f"{v.name}.view({size}).transpose(1, 2).flatten(1, 2)"]
    if channels % 4 == 0:
        texts += ["F.pixel_shuffle({v}, 2)"]
    return b.add(b.pick(tuple(texts)).format(v=v.name), v)


def activation_in_place(b: Builder) -> Value | None:
    """The same, over the memory of its input."""
    v = b.value()
    assert v is not None
    if b.pick((True, False)):
        text = b.pick(ACTIVATIONS_IN_PLACE).format(v=v.name)
    else:
        text = f"{b.layer('act', b.pick(LAYERS_IN_PLACE))}({v.name})"
    return b.add(text, v, overwrites=v)


def number(b: Builder) -> Value | None:
    """Arithmetic with a number."""
    v = b.value()
    assert v is not None
    b.features.add("number")
    return b.add(b.pick(NUMBERS).format(v=v.name), v)


def nothing(b: Builder) -> Value | None:
    """What does nothing in eval mode."""
    v = b.value()
    assert v is not None
    text = b.pick(NOTHING if v.ndim == 4 else NOTHING[:2] + NOTHING[3:])  # dropout2d wants maps
    if text.startswith("nn."):
        text = b.layer("none", text) + "({v})"
        b.net.eval()
    return b.add(text.format(v=v.name), v)


def addition(b: Builder) -> Value | None:
    """A sum of two values of one shape, which may be the same value."""
    v = b.value()
    assert v is not None
    others = [w for w in b.values if w.shape == v.shape and w.name != v.name]
    w = b.pick([*others, v])
    b.features.add("addition" if w.name != v.name else "addition with itself")
    if b.pick((False, False, True)):
        if b.pick((True, False)):
            return b.add(b.pick(SUMS_IN_PLACE).format(v=v.name, w=w.name), v, w, overwrites=v)
        return _augmented(b, v, w)
    return b.add(b.pick(SUMS).format(v=v.name, w=w.name), v, w)


def _augmented(b: Builder, v: Value, w: Value) -> Value | None:
    """The statement `v += w`: the name v then means the sum."""
    found = b.add(f"{v.name}.add_({w.name})", v, w, overwrites=v)
    if found is not None:
        b.lines[-1] = f"{v.name} += {w.name}; {found.name} = {v.name}"
    return found


def broadcast(b: Builder) -> Value | None:
    """A sum with a value of which some axis is 1."""
    v = b.value(*range(3, 6))
    if v is None:
        return None
    axes = list(range(2, v.ndim))
    kept = b.pick((axes, axes[:1], axes[-1:], [1, *axes]))
    small = b.add(f"{v.name}.mean({tuple(kept)}, keepdim=True)", v)
    if small is None:
        return None
    b.features.add("broadcast")
    text = b.pick(("{v} + {w}", "{w} + {v}", "torch.add({v}, {w})"))
    return b.add(text.format(v=v.name, w=small.name), v, small)


def concatenation(b: Builder) -> Value | None:
    """A concatenation of two or three values along an axis where they may differ."""
    v = b.value()
    assert v is not None
    axis = b.pick((1, v.ndim - 1))
    rest = v.shape[: axis - 1] + v.shape[axis:]
    fit = [w for w in b.values if w.ndim == v.ndim and w.shape[: axis - 1] + w.shape[axis:] == rest]
    parts = [v, *(b.pick(fit) for _ in range(b.pick((1, 2))))]
    names = ", ".join(part.name for part in parts)
    text = b.pick(
        ("torch.cat([{n}], {a})", "torch.cat(({n}), dim={a})", "torch.concat([{n}], {a})")
    )
    b.features.add("concatenation")
    return b.add(text.format(n=names, a=b.pick((axis, axis - v.ndim))), *parts)
