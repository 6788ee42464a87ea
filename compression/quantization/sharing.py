"""Values that are only ever concatenated take the range of what they become: their codes are copied.

Otherwise each is rounded twice: to codes of its own, and to those of the concatenation.
"""

from collections.abc import Mapping

import torch

from compression.quantization.calibration import Range
from compression.quantization.plan import Call, Join, Plan

CLOSE = 1.25
"""Times the narrowest range of concatenations that share one: a third of a bit. A dense block whose
range grows by 2.4 lost 7 dB by a single one."""


def shared_ranges(plan: Plan, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return the range of each rounded value, one for all that are joined.

    Concatenations that share such a value share their range, too, as a dense block's do, where theirs
    are close; where they are not, each value keeps its own.
    """
    joined = _only_joined(plan)
    first = {name: name for name in ranges}  # of those that share a range

    def found(name: str) -> str:
        while first[name] != name:
            name = first[name]
        return name

    for item in plan.items:
        if isinstance(item, Join) and item.dim is not None:
            for node in item.inputs:
                if plan.codes.get(node) in joined:
                    first[found(plan.codes[node])] = found(plan.codes[item.node])
    members: dict[str, list[str]] = {}
    for name in ranges:
        members.setdefault(found(name), []).append(name)
    shared = dict(ranges)
    for names in members.values():
        if _are_close([ranges[name] for name in names if name not in joined]):
            shared |= dict.fromkeys(names, _widest([ranges[name] for name in names]))
    return shared


def _only_joined(plan: Plan) -> set[str]:
    """Return the rounded values that nothing but concatenations reads, as they are or moved."""
    joined, read = set(), set()
    for item in plan.items:
        if isinstance(item, Call):
            names = {plan.codes[node] for node in item.inputs if node in plan.codes}
            if isinstance(item, Join) and item.dim is not None:
                joined |= names
            else:
                read |= names - {plan.codes.get(item.node)}
    return joined - read - {node.name for node in plan.constants}


def _are_close(ranges: list[Range]) -> bool:
    widths = [float(high.clamp(min=0) - low.clamp(max=0)) for low, high in ranges]
    return not widths or max(widths) <= CLOSE * min(widths)


def _widest(ranges: list[Range]) -> Range:
    lows, highs = zip(*ranges, strict=True)
    return torch.stack(lows).amin(), torch.stack(highs).amax()
