"""Many lines of one reason as one: a hundred rows that failed alike have one thing to say."""

from collections.abc import Iterable

MOST = 3


def group_by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each name and reason, and one for a reason that more than three names share."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, found in names.items():
        if len(found) <= MOST:
            lines += [f"{name}: {reason}" for name in found]
        else:
            lines.append(f"{len(found)} benchmarks ({', '.join(found[:MOST])}, ...): {reason}")
    return lines
