"""Lines whose channels can be followed, or must stay: products, shuffles, norms, attention, views."""

from tests.support.builder import Builder, Value
from tests.support.layers import called

ANY = (2, 3, 4, 5)
MAPS = (3, 4, 5)
SEQUENCE = (3,)
IMAGES = (4,)
FUNCTIONS: tuple[tuple[tuple[int, ...], str], ...] = tuple(
    (ndims, text)
    for ndims, texts in (
        (ANY, (
            "{v} * {v}", "{v} * torch.sigmoid({v})", "F.silu({v})", "F.gelu({v})", "-{v}",
            "{v}.exp()", "{v}.abs()", "{v} ** 2", "torch.maximum({v}, -{v})", "0.5 - {v}",
            "torch.where({v} > 0, {v}, 0.1 * {v})", "{v} / ({v}.abs() + 1)", "1 / ({v}.abs() + 1)",
            "({v}.abs() + 0.1).log()", "({v}.square() + 0.1).rsqrt()", "({v}.square() + 1) ** -0.5",
            "{v}.softmax(1)", "{v}.softmax(-1)", "F.normalize({v}, 2.0, dim=-1)", "F.normalize({v})",
            "F.normalize({v}, 1.0, -1)", "{v}.cumsum(-1)", "{v}.sum(1, keepdim=True)",
            "{v} - {v}.mean(1, keepdim=True)", "{v}.amax(1, keepdim=True)",
            "{v} - {v}.mean(-1, keepdim=True)", "{v}.amax(-1, keepdim=True)", "{v}.max(1)[0]",
            "{v}.max(-1)[0]", "{v}.max(-1).values", "{v}.std(-1, unbiased=False)",
            "{v}.roll(1, 1)", "{v}.flip(1)", "{v}.flip(-1)", "{v}[:, 1:]", "{v}[:, :2]", "{v}[:, ::2]",
            "{v}[:, -1:]", "{v}[..., -1:]", "{v}[..., 1:]", "{v}[:, [0, -1]]", "{v}.narrow(1, 0, 1)",
            "{v}.chunk(2, 1)[0] * {v}.chunk(2, 1)[-1]", "{v}.split(1, 1)[-1]", "{v}.unbind(1)[0]",
            "torch.cat([{v}.chunk(2, 1)[-1], {v}.chunk(2, 1)[0]], 1)", "{v}.repeat_interleave(2, 1)",
            "torch.stack([{v}, 2 * {v}], 1).flatten(1, 2)", "torch.stack([{v}, {v}], 2)",
            "{v}.unflatten(1, (2, -1))", "{v}.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2)",
            "{v}.view({v}.size(0), 2, {v}.size(1) // 2, -1).transpose(1, 2).reshape({v}.shape)",
            "{v}.view(-1, {c}, {rest})", "{v}.reshape(-1, {n})", "{v}.view(len({v}), {n})",
            "{v} * {v}.shape[1]", "{v} / {v}.size(1) ** 0.5", "{v} * {v}.shape[-1]",
            "torch.cat([{v}, torch.zeros_like({v})], 1)", "torch.cat([{v}, {v}.relu()], -1)",
            "{v}.to({v}.dtype)", "{v} + torch.ones(1, device={v}.device)", "{v}.repeat(1, 2{ones})",
            "F.glu(torch.cat([{v}, {v} + 1], 1), 1)", "F.softmax({v}, dim=1)",
            "{v}.clamp(min=0.1).sqrt()", "{v} * ({v}.argmax(1, keepdim=True) > 0)",
            "torch.add({v}, {v}, alpha=2)", "torch.lerp({v}, {v}.relu(), 0.3)", "{v}.topk(1, 1)[0]",
            "{v}.sort(1)[0]", "{v}.norm(2, -1, keepdim=True)", "torch.logsumexp({v}, -1, keepdim=True)",
        )),
        (MAPS, (
            "{v} @ {v}.transpose(-1, -2)", "{v}.transpose(-1, -2) @ {v}",
            "{v}.flatten(2) @ {v}.flatten(2).transpose(1, 2)",
            "{v}.flatten(2).transpose(1, 2) @ {v}.flatten(2)",
            "{v}.exp().flatten(2).transpose(1, 2) @ {v}.flatten(2).exp()",
            "({v}.flatten(2).transpose(1, 2) @ {v}.flatten(2)).softmax(-1)",
            "F.max_pool1d({v}.flatten(2).transpose(1, 2), 3, 1, 1)", "F.pad({v}, (1, 1))",
            "F.max_pool2d({v}.flatten(2), 3, 1, 1)", "F.pad({v}, (1, 0), value=0.5)",
            "F.pad({v}, (1, 1), mode='replicate')", "{v}.mean(-1)", "{v}.mean(dim=(1, 2))",
            "{v}.var(2, keepdim=True)", "{v}.unfold(2, 2, 1).flatten(2)", "{v}.sum((-1, -2))",
            "F.avg_pool1d({v}.flatten(2), 2)", "{v}.movedim(1, -1)", "{v}.flatten(1, 2)",
            "F.dropout1d({v}, 0.5, False)", "F.instance_norm({v})", "F.layer_norm({v}, {v}.shape[2:])",
            "F.layer_norm({v}, {v}.shape[1:])",
        )),
        (SEQUENCE, (
            "F.scaled_dot_product_attention({v}, {v}, {v})",
            "F.scaled_dot_product_attention({v}, {v}, {v}, scale=0.3)",
            "F.scaled_dot_product_attention(*{v}.transpose(1, 2).chunk(3, 2)[:1] * 3)",
            "F.scaled_dot_product_attention(*[{v}.transpose(1, 2)] * 3)",
            "F.scaled_dot_product_attention({v}.unflatten(2, (2, -1)).transpose(1, 2), "
            "{v}.unflatten(2, (2, -1)).transpose(1, 2), {v}.unflatten(2, (2, -1)).transpose(1, 2), "
            "scale=0.5).transpose(1, 2).flatten(2)",
            "F.interpolate({v}, scale_factor=2)", "F.pad({v}, (0, 0, 0, 1))",
            "F.pad({v}, (0, 0, 1, 1), value=1.5)", "torch.bmm({v}, {v}.transpose(1, 2))",
            "torch.einsum('ncl,nkl->nck', {v}, {v})",
        )),
        (IMAGES, (
            "F.pixel_shuffle({v}, 2)", "F.pixel_unshuffle({v}, 2)",
            "F.interpolate({v}, scale_factor=2)",
            "F.interpolate({v}, size=(3, 3), mode='bilinear')", "F.pad({v}, (1, 0, 0, 1, 1, 2))",
            "F.pad({v}, (0, 0, 0, 0, 0, 1))", "F.channel_shuffle({v}, 2)", "F.pad({v}, (0, 0, -1, 0))",
            "torch.cat([F.max_pool2d({v}, k, 1, k // 2) for k in (1, 3, 5)], 1)",
            "F.max_pool2d({v}.permute(0, 2, 3, 1), 3, 1, 1)", "F.avg_pool2d({v}, 2)",
            "F.adaptive_avg_pool2d({v}.permute(0, 2, 1, 3), 2)", "{v}.permute(0, 2, 3, 1)",
            "{v}.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2)",
            "F.batch_norm({v}, {v}.new_zeros({c}), {v}.new_ones({c}))",
        )),
    )
    for text in texts
)  # fmt: skip
LAYERS: tuple[tuple[tuple[int, ...], str], ...] = (
    *[(MAPS, f"nn.GroupNorm({g}, {{c}})") for g in (1, 2, 3)],
    *[(MAPS, f"nn.GroupNorm({g}, {{c}}, affine=False)") for g in (2, 4)],
    (MAPS, "nn.InstanceNorm{d}d({c}, affine=True)"),
    (MAPS, "nn.InstanceNorm{d}d({c})"),
    (ANY, "nn.LayerNorm({last})"),
    (MAPS, "nn.LayerNorm(({before}, {last}))"),
    (ANY, "nn.PReLU({c})"),
    (ANY, "nn.PReLU()"),
    (IMAGES, "nn.PixelShuffle(2)"),
    (IMAGES, "nn.ChannelShuffle(2)"),
    (IMAGES, "nn.Upsample(scale_factor=2, mode='bilinear')"),
    (IMAGES, "nn.ReflectionPad2d(1)"),
    (IMAGES, "nn.Conv2d({c}, {c}, 3, padding=1, groups={c}, padding_mode='reflect')"),
    (IMAGES, "nn.Conv2d({c}, 2 * {c}, 1, groups={c})"),
    (IMAGES, "nn.Conv2d({c}, 4, 1, groups=2)"),
    (IMAGES, "nn.ConvTranspose2d({c}, {c}, 2, stride=2, groups={c})"),
    (IMAGES, "nn.Softmax2d()"),
    (MAPS, "nn.BatchNorm{d}d({c}, track_running_stats=False)"),
    (ANY, "nn.Softmax(1)"),
    (ANY, "nn.GLU(1)"),
    (ANY, "nn.Softmax(-1)"),
    (ANY, "nn.Bilinear({last}, {last}, 3)"),
    (SEQUENCE, "nn.TransformerEncoderLayer({last}, 1, 8, batch_first=True)"),
    (SEQUENCE, "nn.GRU({last}, 4, batch_first=True)"),
    (SEQUENCE, "nn.RMSNorm({last})"),
)
TENSORS = (
    ("torch.randn({c}{ones})", "{v} * self.{t}"),
    ("torch.randn({c}{ones})", "self.{t} + {v}"),
    ("torch.randn({last})", "{v} * self.{t}"),
    ("torch.randn({c}, {last})", "{v} + self.{t}.view({c}{mid}, {last})"),
    ("torch.randn(1, {c}{mid}, {last})", "{v} + self.{t}"),
    ("torch.randn({last}, 3)", "{v} @ self.{t}"),
    ("torch.randn(3, {last})", "F.linear({v}, self.{t})"),
    ("torch.randn(())", "{v} * self.{t}"),
    ("torch.randn({c}{ones})", "{v} / self.{t}"),
    ("torch.randn({c}{ones})", "torch.where(self.{t} > 0, {v}, -{v})"),
    ("torch.randn({c}{ones})", "F.relu({v}) + self.{t} * self.{t}.mean()"),
)


def function(b: Builder) -> Value | None:
    """A function or an operator."""
    ndims, text = b.pick(FUNCTIONS)
    v = b.value(*ndims)
    if v is None:
        return None
    b.features.add("len" if "len(" in text else "channels")
    return b.add(_formatted(text, v), v)


def layer(b: Builder) -> Value | None:
    """A layer."""
    ndims, text = b.pick(LAYERS)
    v = b.value(*ndims)
    if v is None:
        return None
    if "Bilinear" in text:
        name = b.layer("pair", _formatted(text, v))
        return b.add(f"{name}({v.name}, {v.name})", v)
    if "GRU" in text:
        name = b.layer("recurrent", _formatted(text, v))
        return b.add(f"{name}({v.name})[0]", v)
    return called(b, v, "other", _formatted(text, v))


def attention(b: Builder) -> Value | None:
    """Attention as torch writes it."""
    v = b.value(*SEQUENCE)
    if v is None:
        return None
    width = v.shape[-1]
    heads = b.pick([n for n in range(1, width + 1) if width % n == 0])
    name = b.layer("attention", f"nn.MultiheadAttention({width}, {heads}, batch_first=True)")
    return b.add(f"{name}({v.name}, {v.name}, {v.name})[0]", v)


def tensor(b: Builder) -> Value | None:
    """A parameter or a buffer that the forward reads by name."""
    v = b.value()
    assert v is not None
    made, text = b.pick(TENSORS)
    kind = b.pick(("nn.Parameter", "nn.Buffer"))
    name = b.layer("held", f"{kind}({_formatted(made, v)})").removeprefix("self.")
    found = b.add(_formatted(text, v).replace("{t}", name), v)
    if found is None:
        b.drop_layer(name)
    return found


def gate(b: Builder) -> Value | None:
    """Squeeze and excite."""
    v = b.value(*IMAGES)
    if v is None:
        return None
    c = v.shape[0]
    down, up = b.layer("down", f"nn.Conv2d({c}, 4, 1)"), b.layer("up", f"nn.Conv2d(4, {c}, 1)")
    squeezed = f"{v.name}.mean((2, 3), keepdim=True)"
    return b.add(f"torch.sigmoid({up}(F.relu({down}({squeezed})))) * {v.name}", v)


def halves(b: Builder) -> Value | None:
    """A layer whose outputs are split, one part changed, and joined again."""
    v = b.value(*IMAGES)
    if v is None:
        return None
    split = b.layer("split", f"nn.Conv2d({v.shape[0]}, 6, 1)")
    one, other = b.fresh("one"), b.fresh("other")
    text = f"{one}, {other} = {split}({v.name}).{b.pick(('chunk(2, 1)', 'split((2, 4), 1)'))}"
    b.line(text, v)
    exec(text, b.names)
    joined: Value | None = b.add(f"torch.cat([{other}, F.relu({one}), {other}], 1)", v)
    return joined


def product(b: Builder) -> Value | None:
    """A product of two values that broadcast."""
    v, w = b.value(), b.value()
    assert v is not None
    assert w is not None
    return b.add(
        b.pick(("{v} * {w}", "{v} @ {w}", "torch.mul({v}, {w})")).format(v=v.name, w=w.name), v, w
    )


def _formatted(text: str, v: Value) -> str:
    """Fill in a value's name and sizes; a name that is not known yet stays."""
    sizes = {
        "v": v.name, "c": v.shape[0], "last": v.shape[-1], "n": v.tensor[0].numel(),
        "before": v.shape[-2] if v.ndim > 2 else 1, "rest": v.tensor[0, 0].numel(), "d": v.ndim - 2,
        "ones": ", 1" * (v.ndim - 2), "mid": ", 1" * max(v.ndim - 3, 0), "t": "{t}",
    }  # fmt: skip
    return text.format(**sizes)
