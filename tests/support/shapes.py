"""Lines of pools, means and of what changes the shape only."""

from tests.support.builder import Builder, Value
from tests.support.layers import MAPS, joined


def max_pool(b: Builder) -> Value | None:
    """A maximum over any window."""
    v = b.value(*MAPS)
    if v is None:
        return None
    options = _window(b)
    if b.pick((False, False, True)):
        options["dilation"] = "2"
    return _pool(b, v, "MaxPool", "max_pool", options)


def average_pool(b: Builder) -> Value | None:
    """An average over any window."""
    v = b.value(*MAPS)
    if v is None:
        return None
    options = _window(b)
    if b.pick((False, True)):
        options["count_include_pad"] = "False"
    if v.ndim > 3 and b.pick((False, False, True)):
        options["divisor_override"] = b.pick(("1", "3"))
    return _pool(b, v, "AvgPool", "avg_pool", options)


def adaptive_pool(b: Builder) -> Value | None:
    """An adaptive average (or, rarely, maximum) to any size."""
    v = b.value(*MAPS)
    if v is None:
        return None
    d, size = v.ndim - 2, b.pick((1, 1, 2, 3))
    mode = b.pick(("avg", "avg", "avg", "max"))
    if mode == "max":
        b.features.add("adaptive maximum")
    if b.pick((True, False)):
        layer = b.layer("pool", f"nn.Adaptive{mode.capitalize()}Pool{d}d({size})")
        return b.add(f"{layer}({v.name})", v)
    return b.add(f"F.adaptive_{mode}_pool{d}d({v.name}, {size})", v)


def mean(b: Builder) -> Value | None:
    """A mean over axes."""
    v = b.value(*MAPS)
    if v is None:
        return None
    axes = b.pick([a for a in ("(2, 3)", "-1", "2", "[-2, -1]", "1", "(1, 2)") if _has(a, v.ndim)])
    keep = b.pick(("", ", keepdim=True", ", True"))
    return b.add(
        b.pick(("{v}.mean({a})", "torch.mean({v}, {a})")).format(v=v.name, a=axes + keep), v
    )


def flatten(b: Builder) -> Value | None:
    """Everything behind the batch in one axis, said in any way."""
    v = b.value()
    assert v is not None
    n, numbers = v.name, v.tensor[0].numel()
    text = b.pick((
        f"torch.flatten({n}, 1)", f"{n}.flatten(1)", f"{n}.view({n}.size(0), -1)",
        f"{n}.reshape({n}.shape[0], -1)", f"{n}.reshape(-1, {numbers})", f"{n}.view(len({n}), -1)",
        f"{n}.view({n}.size()[0], -1)", f"torch.reshape({n}, (-1, {numbers}))",
    ))  # fmt: skip
    if "len(" in text:
        b.features.add("len")
    if b.pick((True, False)):
        return b.add(text, v)
    return b.add(f"{b.layer('flat', 'nn.Flatten()')}({n})", v)


def reshaped(b: Builder) -> Value | None:
    """A view by sizes and by arithmetic on them."""
    v = b.value(*MAPS)
    if v is None:
        return None
    n, axes = v.name, [b.fresh(axis) for axis in "ncdhw"[: v.ndim]]
    how = b.pick(("size", "shape", "names", "halves"))
    if how == "size":
        return b.add(f"{n}.view({n}.size(0), {n}.size(1), -1)", v)
    if how == "shape":
        return b.add(f"{n}.reshape({n}.shape[0], -1, {n}.shape[-1])", v)
    if how == "halves":
        if v.shape[0] % 2:
            return None
        return b.add(f"{n}.reshape({n}.size(0) * 1, 2, {n}.size(1) // 2, -1)", v)
    sizes = f"{', '.join(axes)} = {n}.{b.pick(('shape', 'size()'))}"
    b.line(sizes, v)
    exec(sizes, b.names)
    found = b.add(f"{n}.reshape({axes[0]}, {axes[1]}, {' * '.join(axes[2:])})", v)
    if found is None:
        b.lines.pop()
    return found


def sliced(b: Builder) -> Value | None:
    """A part of a value."""
    v = b.value()
    assert v is not None
    parts = (":, :2", ":, 1:", "..., :2", ":, ::2", ":, -1", ":, :, 0", ":, :-1", "..., 1:")
    b.features.add("slice")
    return b.add(f"{v.name}[{b.pick(parts)}]", v)


def axes(b: Builder) -> Value | None:
    """Axes moved, added or taken away."""
    v = b.value()
    assert v is not None
    n = v.name
    texts = [
        f"{n}.unsqueeze(1)",
        f"{n}.unsqueeze(-1)",
        f"{n}.squeeze(-1)",
        f"torch.unsqueeze({n}, 2)",
    ]
    if v.ndim > 2:
        moved = ", ".join(map(str, [0, *range(2, v.ndim), 1]))
        texts = [
            f"{n}.transpose(1, 2)", f"{n}.permute({moved})", f"torch.transpose({n}, 1, -1)",
            f"{n}.flatten(2).transpose(1, 2)", f"{n}.permute({moved}).contiguous()", *texts,
        ]  # fmt: skip
    b.features.add("axes")
    return b.add(b.pick(texts), v)


def _window(b: Builder) -> dict[str, str]:
    options = {"kernel_size": b.pick(("2", "3"))}
    if b.pick((True, False)):
        options["stride"] = b.pick(("1", "2", "3"))
    if b.pick((False, True)):
        options["padding"] = "1"
    if b.pick((False, False, True)):
        options["ceil_mode"] = "True"
    return options


def _pool(b: Builder, v: Value, kind: str, function: str, options: dict[str, str]) -> Value | None:
    d = v.ndim - 2
    if b.pick((True, False)):
        return b.add(f"F.{function}{d}d({v.name}{joined(options)})", v)
    layer = b.layer("pool", f"nn.{kind}{d}d({joined(options)[2:]})")
    found = b.add(f"{layer}({v.name})", v)
    if found is None:
        b.drop_layer(layer)
    return found


def _has(axes: str, ndim: int) -> bool:
    return ndim > max(abs(int(a)) for a in axes.strip("()[]").split(","))
