"""Lines that a function may refuse: it is right or says so."""

from tests.support.builder import Builder, Value
from tests.support.layers import MAPS, called

FUNCTIONS = (
    "torch.sigmoid({v})", "{v}.softmax(1)", "F.gelu({v})", "torch.tanh({v})", "{v} * {v}",
    "F.leaky_relu({v})", "F.silu({v})", "F.hardswish({v})", "{v} * {v}.sigmoid()", "-{v}",
    "0.5 - {v}", "{v} - {v}.mean(1, keepdim=True)", "F.pad({v}, (1, 1))", "{v}.max(1)[0]",
    "{v}.abs()", "{v}.exp()", "{v}.clone()", "torch.where({v} > 0, {v}, 0.0)", "{v}.chunk(2, 1)[0]",
    "torch.stack([{v}, {v}], 1)", "torch.add({v}, {v}, alpha=2)", "{v}.sum(1)",
    "{v} @ {v}.transpose(-1, -2)", "{v}.roll(1, 1)", "F.normalize({v})", "{v}.split(1, 1)[-1]",
    "{v}.std(1)", "{v}.amax(1)", "{v}.detach()", "F.threshold({v}, 0.1, 0.0)", "{v}.flip(1)",
    "{v}.expand(-1, *[-1] * ({v}.dim() - 1))", "{v} ** 2", "{v}.square()", "torch.maximum({v}, -{v})",
)  # fmt: skip
LAYERS = (
    "nn.Sigmoid()", "nn.GELU()", "nn.LeakyReLU(0.1)", "nn.PReLU()", "nn.Softmax(1)", "nn.Hardswish()",
    "nn.LayerNorm({last})", "nn.GroupNorm(1, {c})", "nn.InstanceNorm2d({c})",
    "nn.Upsample(scale_factor=2)",
    "nn.ZeroPad2d(1)", "nn.Conv2d({c}, 2, 3, padding=1, padding_mode='reflect')", "nn.LPPool2d(2, 2)",
    "nn.BatchNorm2d({c}, track_running_stats=False)",
    "nn.MaxPool2d(2, return_indices=True)",
    "nn.Softplus()", "nn.ELU()", "nn.AdaptiveAvgPool2d((None, 1))", "nn.AdaptiveAvgPool2d((1, None))",
)  # fmt: skip
CLASSES = {
    "Standardized": (
        "class Standardized(nn.Conv2d):",
        "    def forward(self, x):",
        "        weight = self.weight - self.weight.mean()",
        "        return F.conv2d(x, weight, self.bias, self.stride, self.padding)",
    ),
    "Doubled": (
        "class Doubled(nn.Linear):",
        "    def forward(self, x):",
        "        return 2 * super().forward(x)",
    ),
    "Filter": (
        "class Filter(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        "        self.register_buffer('k', torch.ones(1, 1, 2, 2) / 4, persistent=False)",
        "    def forward(self, x):",
        "        return F.conv2d(x[:, :1], self.k)",
    ),
    "Gate": (
        "class Gate(nn.Module):",
        "    def __init__(self, n):",
        "        super().__init__()",
        "        self.gate = nn.Parameter(torch.randn(n))",
        "    def forward(self, x):",
        "        return x * self.gate",
    ),
    "Recurrent": (
        "class Recurrent(nn.Module):",
        "    def __init__(self, n):",
        "        super().__init__()",
        "        self.lstm = nn.LSTM(n, 4, batch_first=True)",
        "    def forward(self, x):",
        "        return self.lstm(x)[0]",
    ),
    "Attention": (
        "class Attention(nn.Module):",
        "    def __init__(self, n):",
        "        super().__init__()",
        "        self.attention = nn.MultiheadAttention(n, 1, batch_first=True)",
        "    def forward(self, x):",
        "        return self.attention(x, x, x)[0]",
    ),
}
MADE = {
    "Standardized": ("Standardized({c}, 3, 2)", (4,)),
    "Doubled": ("Doubled({last}, 3)", (2, 3, 4, 5)),
    "Filter": ("Filter()", (4,)),
    "Gate": ("Gate({last})", (2, 3, 4, 5)),
    "Recurrent": ("Recurrent({last})", (3,)),
    "Attention": ("Attention({last})", (3,)),
}
PARAMETRIZED = (
    "torch.nn.utils.parametrizations.weight_norm(nn.Linear({last}, 3))",
    "torch.nn.utils.parametrizations.spectral_norm(nn.Linear({last}, 3))",
    "torch.nn.utils.prune.l1_unstructured(nn.Linear({last}, 3), 'weight', 0.3)",
)


def strange(b: Builder) -> Value | None:
    """A function or a layer of torch that may be refused."""
    v = b.value()
    assert v is not None
    if b.pick((True, False)):
        text = b.pick(FUNCTIONS)
        b.features.add(f"strange: {text.format(v='x')}")
        return b.add(text.format(v=v.name), v)
    made = b.pick(LAYERS).format(c=v.shape[0], last=v.shape[-1])
    b.features.add(f"strange: {made.split('(')[0]}")
    return called(b, v, "odd", made)


def own_class(b: Builder) -> Value | None:
    """A layer of a class of the user's, which computes something else than its base."""
    name = b.pick(list(CLASSES))
    made, ndims = MADE[name]
    v = b.value(*ndims)
    if v is None:
        return None
    text = "\n".join(CLASSES[name]) + "\n"
    exec(text, b.names)
    found = called(b, v, "own", made.format(c=v.shape[0], last=v.shape[-1]))
    if found is not None:
        b.classes[name] = text
        b.features.add(f"class {name}")
    return found


def parametrized(b: Builder) -> Value | None:
    """A layer whose weight is computed at each call."""
    v = b.value()
    assert v is not None
    made = b.pick(PARAMETRIZED).format(last=v.shape[-1])
    found = called(b, v, "computed", made)
    if found is not None:
        b.features.add("parametrized" if "prune" not in made else "masked")
    return found


__all__ = ["MAPS", "own_class", "parametrized", "strange"]
