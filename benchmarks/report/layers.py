"""INT8 on a GPU layer by layer: one line per layer, with its floor."""

from collections.abc import Sequence

from benchmarks.facts.record import Facts
from benchmarks.report.columns import significant
from benchmarks.report.table import markdown


def layers(facts: Sequence[Facts]) -> str:
    """Return each layer's microseconds at each batch, how many times its floor, and the last tile.

    The floor is the larger of the times that its bytes and its operations take at the card's rates.
    """
    batches = sorted(facts, key=lambda fact: int(fact["batch_size"]))
    head = ["layer"]
    for fact in batches:
        head += [f"{fact['batch_size']} at once, us", "x floor"]
    lines = []
    for same in zip(*(fact["layers"] for fact in batches), strict=True):
        line = [f"`{same[0]['name']}`"]
        for layer in same:
            line += [significant(1e3 * layer["ms"]), f"{layer['times_floor']:.1f}"]
        lines.append([*line, " ".join(map(str, same[-1]["tile"]))])
    total = ["all"]
    for fact in batches:
        total += [significant(1e3 * sum(layer["ms"] for layer in fact["layers"])), ""]
    return markdown([[*head, "tile"], *lines, [*total, ""]])
