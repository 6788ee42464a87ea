"""Lines that call a layer with weights."""

from tests.support.builder import Builder, Value

MAPS = (3, 4, 5)


def convolution(b: Builder) -> Value | None:
    """A convolution of any kernel, border, groups and dilation."""
    v = b.value(*MAPS)
    if v is None:
        return None
    d, inputs = v.ndim - 2, v.shape[0]
    groups = b.pick([1, 1, *(g for g in range(1, inputs + 1) if inputs % g == 0), inputs])
    outputs = groups * b.pick([n for n in (2, 1, 3, 4, 8) if groups * n <= 8 or n == 1])
    kernel = _per_axis(b, (3, 1, 2), d)
    options = _options(b, d, groups)
    if b.pick((False, False, True)):
        options["padding"] = repr(b.pick(("same", "valid")))
        options.pop("stride", None)
    return called(b, v, "conv", f"nn.Conv{d}d({inputs}, {outputs}, {kernel}{joined(options)})")


def transposed(b: Builder) -> Value | None:
    """A transposed convolution, grouped or not."""
    v = b.value(*MAPS)
    if v is None:
        return None
    d, inputs = v.ndim - 2, v.shape[0]
    groups = b.pick([g for g in range(1, inputs + 1) if inputs % g == 0])
    outputs = groups * b.pick((1, 2))
    options = _options(b, d, groups)
    if options.get("stride") == "2" and b.pick((False, True)):
        options["output_padding"] = "1"
    b.features.add("transposed")
    if groups > 1:
        b.features.add("grouped transposed")
    kernel = _per_axis(b, (2, 3, 1), d)
    made = f"nn.ConvTranspose{d}d({inputs}, {outputs}, {kernel}{joined(options)})"
    return called(b, v, "up", made)


def linear(b: Builder) -> Value | None:
    """A linear layer on the last axis of anything."""
    v = b.value()
    if v is None:
        return None
    bias = b.pick(("", ", bias=False"))
    return called(b, v, "fc", f"nn.Linear({v.shape[-1]}, {b.pick((4, 3, 1, 8))}{bias})")


def norm(b: Builder) -> Value | None:
    """A batch norm behind a layer, or standing alone; its statistics are not those of a fresh one."""
    v = b.value()
    if v is None:
        return None
    options = b.pick(("", "", ", affine=False", ", eps=0.1"))
    d = max(1, v.ndim - 2)
    if d > 3:
        return None
    made = f"nn.BatchNorm{d}d({v.shape[0]}{options})"
    found = called(b, v, "bn", made)
    if found is not None:
        name = list(b.layers)[-1]
        b.setup += [
            f"net.{name}.running_mean.uniform_(-1, 1)",
            f"net.{name}.running_var.uniform_(0.5, 2)",
        ]
        if "affine" not in options:
            b.setup += [f"net.{name}.weight.uniform_(-1.5, 1.5)", f"net.{name}.bias.normal_()"]
    return found


def layer_again(b: Builder) -> Value | None:
    """A layer called a second time, under its name or another, or one with the same weight."""
    v = b.value()
    weighted = [n for n, made in b.layers.items() if made.startswith(("nn.Conv", "nn.Lin"))]
    if v is None or not weighted:
        return None
    name = b.pick(weighted)
    how = b.pick(("shared", "two names", "tied"))
    if how == "shared":
        b.features.add("shared layer")
        return b.add(f"self.{name}({v.name})", v)
    made = f"self.{name}" if how == "two names" else b.layers[name]
    found = called(b, v, "twin", made)
    if found is not None:
        b.features.add(how)
        if how == "tied":
            twin = list(b.layers)[-1]
            # At once, as a network does in its __init__.
            b.layers[f"{twin}.weight"] = f"self.{name}.weight"
    return found


def called(b: Builder, v: Value, kind: str, constructor: str) -> Value | None:
    """Add a layer and its call."""
    try:
        layer = b.layer(kind, constructor)
    except (RuntimeError, ValueError):
        return None
    b.names["self"].eval()
    found = b.add(f"{layer}({v.name})", v)
    if found is None:
        b.drop_layer(layer)
    return found


def joined(options: dict[str, str]) -> str:
    """Return keyword arguments as they stand in a call."""
    return "".join(f", {name}={value}" for name, value in options.items())


def _per_axis(b: Builder, sizes: tuple[int, ...], d: int) -> str:
    if b.pick((True, True, False)):
        return str(b.pick(sizes))
    return str(tuple(b.pick(sizes) for _ in range(d)))


def _options(b: Builder, d: int, groups: int) -> dict[str, str]:
    options = {
        "stride": _per_axis(b, (1, 2), d),
        "padding": _per_axis(b, (0, 1, 2), d),
        "dilation": b.pick(("1", "1", "2")),
        "groups": str(groups),
        "bias": b.pick(("True", "False")),
    }
    usual = {"stride": "1", "padding": "0", "dilation": "1", "groups": "1", "bias": "True"}
    return {k: v for k, v in options.items() if usual[k] != v}
