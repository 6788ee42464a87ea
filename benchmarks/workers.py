"""Which tests stay on one worker of xdist: a technique's, compressed once, and those of a file."""

import re

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

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
