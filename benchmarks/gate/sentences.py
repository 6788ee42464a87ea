"""One line for many rows that failed for the same reason."""

from collections.abc import Iterable

MOST = 3


def group_by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line per name and reason, but one line where more than three names share a reason."""
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
