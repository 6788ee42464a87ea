"""Which tests stay on one worker of xdist: a technique's, compressed once, and those of a file."""

import re
from collections import Counter
from typing import Any

from xdist.scheduler import LoadScopeScheduling

_PARAMETERS = re.compile(r"\[((?:cpu|cuda)-.+?)(?:-batch\d+(?:-\w+)?)?\]$")


def group_of(node_id: str) -> str:
    """Return the name of a test's group: device and technique, or its file.

    >>> group_of("benchmarks/test_latency.py::test_latency[cuda-static-int8-batch128-graph]")
    'cuda-static-int8'
    """
    file, _, test = node_id.partition("::")
    parameters = _PARAMETERS.search(test) if file.startswith("benchmarks/") else None
    return parameters[1] if parameters else file


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives workers whole groups, in the order of collection.

    xdist 3.8 tells its scheduler of marks by changing node ids, which pytest 9.2 does not allow.
    """

    def __init__(self, config: Any, log: Any = None) -> None:
        """Start without lost workers."""
        super().__init__(config, log)
        self.lost = Counter[str]()

    def remove_node(self, node: Any) -> str | None:
        """Return the test during which a worker was lost; its group goes to another worker.

        That test is run again once: what takes two workers down would take all of them.
        """
        units = [*self.assigned_work[node].values()]
        running = next(((t, unit) for unit in units for t in unit if not unit[t]), None)
        if running is None:
            super().remove_node(node)
            return None
        test, unit = running
        self.lost[test] += 1
        unit[test] = self.lost[test] > 1
        # xdist would give out finished groups again, and wait for an answer to none of their tests.
        work = self.assigned_work[node]
        self.assigned_work[node] = {
            name: unit for name, unit in work.items() if not all(unit.values())
        }
        super().remove_node(node)
        return test

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
