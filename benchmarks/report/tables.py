"""The tables that the READMEs show of a saved run, by kind."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from benchmarks.facts.record import Facts
from benchmarks.report.brief import brief
from benchmarks.report.columns import interval, parts, significant
from benchmarks.report.engines import engine_times, engines
from benchmarks.report.layers import layers
from benchmarks.report.lessons import lessons, teachers
from benchmarks.report.linear import embedding, linear, recurrent
from benchmarks.report.rows import Row, rows
from benchmarks.report.table import markdown, render_groups, render_notes
from compression.accounting import count_macs, count_parameters
from compression.architectures import Architecture
from compression.errors import CompressionError

PARTS = ("quality", "files", "speed", "wall", "event", "graph", "card", "notes", "brief")
"""The parts of a run's table: those of columns.parts in its order, the sentences, and all in brief."""
TEXTS = {"notes": render_notes, "brief": brief}
DO = ("save", "load")
STORAGE_FORMS = {"mb_per_s": ".0f", "model_sizes": ".2f"}
STORAGE_HEADS = {"storage-speed": "MB/s", "storage-memory": "memory"}


def run_table(facts: Sequence[Facts], kinds: Sequence[str], names: Sequence[str] = ()) -> str:
    """Return the named parts of a run's table as the run prints them, of all rows or of `names`."""
    found = rows(facts)
    unknown = set(names) - {row.technique for row in found}
    if unknown:
        raise CompressionError(f"no row {', '.join(sorted(unknown))}")
    chosen = [row for name in names for row in found if row.technique == name] or found
    return "```\n" + "\n\n".join(_part(chosen, kind) for kind in kinds) + "\n```"


def _part(chosen: list[Row], kind: str) -> str:
    if kind in TEXTS:
        return TEXTS[kind](chosen)
    return render_groups(parts(chosen)[PARTS.index(kind)])


def curve(facts: Sequence[Facts]) -> str:
    """Return file size against accuracy, a row per pruned fraction."""
    head = ["pruned", "price of a bit", "KiB", "times smaller", "acc %", "drop pt"]
    lines = [
        [
            f"{fact['pruned']:.0%}",
            f"{fact['bit_cost']:g}",
            f"{fact['stored_bytes'] / 2**10:,.0f}",
            f"{fact['baseline_stored_bytes'] / fact['stored_bytes']:.1f}",
            f"{fact['accuracy']:.2%}"[:-1],
            f"{100 * fact['drop']:+.2f}",
        ]
        for fact in facts
    ]
    return markdown([head, *lines])


def coders(facts: Sequence[Facts]) -> str:
    """Return the smallest file of each coder within a budget of error."""
    head = ["pruned", "error at most", "coder", "bytes", "error", "write s", "read s", "setting"]
    lines = [
        [
            f"{fact['sparsity']:.0%}",
            f"{fact['error_budget']:.1%}",
            fact["technique"].partition("-")[0],
            f"{fact['stored_bytes']:,}",
            f"{fact['error']:.2%}",
            f"{fact['encode_s']:.1f}",
            f"{fact['decode_s']:.2f}",
            fact["setting"],
        ]
        for fact in sorted(facts, key=lambda fact: (fact["error_budget"], fact["technique"]))
    ]
    return markdown([head, *lines], left=(2, 7))


def storage(facts: Sequence[Facts]) -> str:
    """Return speed (MB/s) and peak memory of saving and loading, a row per kind of file."""
    cells = {
        (*fact["technique"].split("-", 1), fact["metric"], fact["do"]): f"{fact[key]:{form}}"
        for fact in facts
        for key, form in STORAGE_FORMS.items()
        if key in fact
    }
    columns = sorted(
        {(metric, network) for network, _, metric, _ in cells},
        key=lambda column: (column[0] == "storage-memory", int(column[1].strip("resnt"))),
    )
    kinds = sorted({key[1] for key in cells}, key=lambda kind: (kind.endswith("coded"), kind))
    head = ["file", *(f"{network}, {STORAGE_HEADS[metric]}" for metric, network in columns)]
    lines = []
    for kind in kinds:
        keys = [[(network, kind, metric, do) for do in DO] for metric, network in columns]
        pairs = [", ".join(cells.get(key, "-") for key in pair) for pair in keys]
        lines.append([kind, *(pair.replace("-, -", "-") for pair in pairs)])
    return markdown([head, *lines])


def networks(facts: Sequence[Facts]) -> str:
    """Return torchvision's networks on our executors: kernels, differing codes, speed."""
    head = [
        *("network", "executor", "integer kernels", "in float32", "largest difference"),
        *("differing codes", "ms", "speed-up (95%)"),
    ]
    lines, before = [], ""
    for fact in facts:
        network, _, executor = fact["technique"].rpartition("-")
        share = fact["differing_codes"]
        lines.append(
            [
                network if network != before else "",
                executor,
                str(fact["integer_kernels"]),
                str(len(fact["stayed"])),
                str(fact["largest_code_difference"]),
                f"{share:.4%}" if share else "0",
                significant(fact["latency_ms"]),
                interval(fact),
            ]
        )
        before = network
    return markdown([head, *lines], left=(0, 1))


def removal(facts: Sequence[Facts]) -> str:
    """Return the share of torchvision's networks that engines leave, and in how many seconds."""
    engines = dict.fromkeys(fact["technique"].partition("-")[2] for fact in facts)
    lines: dict[str, list[str]] = {}
    for fact in facts:
        network = fact["technique"].partition("-")[0]
        cells = [_left(fact), f"{fact['seconds']:.1f}"]
        lines.setdefault(network, [network]).extend(cells)
    head = ["network", *(cell for name in engines for cell in (f"{name}, MACs", "s"))]
    return markdown([head, *lines.values()], left=(0, *range(1, len(head), 2)))


def _left(fact: Facts) -> str:
    if fact["refusal"]:
        return str(fact["refusal"])
    return f"{fact['macs_left']:.1%}{'' if fact['as_zeros'] else ', other outputs'}"


def agreement(facts: Sequence[Facts]) -> str:
    """Return how often an executor chooses the class that the reference executor chooses."""
    head = ["technique", "executor", "images", "same class", "acc % simulated", "acc % deployed"]
    lines = [
        [
            fact["technique"],
            fact["executor"],
            f"{fact['total']:,}",
            f"{fact['same_choice']:.2%}",
            f"{100 * fact['simulated_accuracy']:.2f}",
            f"{100 * fact['deployed_accuracy']:.2f}",
        ]
        for fact in facts
    ]
    return markdown([head, *lines], left=(0, 1))


def student(facts: Sequence[Facts]) -> str:
    """Return the paper's student beside its teacher at 224x224: what each computes and takes.

    Counts are those of the architectures, times those of the run.
    """
    teacher, pupil = (Architecture(name, 10)() for name in ("resnet18", "five-layer-cnn"))
    image = torch.zeros(1, 3, 224, 224)
    counts = {
        "weights": count_parameters,
        "multiply-accumulates": lambda model: count_macs(model, image),
        "numbers that convolutions and linear layers write": lambda model: _written(model, image),
    }
    lines = [
        [what, *(f"{count(model) / 1e6:,.2f} M" for model in (teacher, pupil))]
        for what, count in counts.items()
    ]
    lines.append(["operators", *(str(_operators(model)) for model in (teacher, pupil))])
    by_batch: dict[int, dict[str, Facts]] = {}
    for fact in facts:
        by_batch.setdefault(fact["batch_size"], {})[fact["technique"]] = fact
    for batch, both in sorted(by_batch.items()):
        cells = [significant(both[name]["latency_ms"]) for name in ("baseline", "student")]
        lines.append([f"batch {batch}, ms", *cells])
        lines.append([f"batch {batch}, speed-up (95%)", "-", interval(both["student"])])
    return markdown([["one image of 224x224", "ResNet-18", "five-layer student"], *lines])


def _written(model: nn.Module, image: Tensor) -> int:
    """Return how many numbers the convolutions and linear layers of a network write."""
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes.append(output.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(note)
    with torch.inference_mode():
        model.eval()(image)
    return sum(sizes)


def _operators(model: nn.Module) -> int:
    nodes = fx.symbolic_trace(model).graph.nodes
    return sum(node.op.startswith("call_") for node in nodes)


TABLES: dict[str, tuple[tuple[str, ...], Callable[[Sequence[Facts]], str]]] = {
    "agreement": (("agreement",), agreement),
    "coders": (("coder",), coders),
    "curve": (("accuracy",), curve),
    "embedding": (("latency",), embedding),
    "engines": (("latency",), engines),
    "engine-times": (("latency",), engine_times),
    "layers": (("layers",), layers),
    "lessons": (("accuracy",), lessons),
    "linear": (("latency",), linear),
    "recurrent": (("latency",), recurrent),
    "networks": (("latency",), networks),
    "removal": (("removal",), removal),
    "storage": (("storage-speed", "storage-memory"), storage),
    "student": (("latency",), student),
    "teachers": (("teaching",), teachers),
}
"""The kinds beside the parts of a run's table: the metrics that each shows, and how."""
