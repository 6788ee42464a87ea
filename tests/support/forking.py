"""A process that forks one for each run, of pytest or of a program, that lines of JSON ask for.

What takes long to import is imported once. No kernel runs here: a fork loses the threads of a pool.
"""

import atexit
import gc
import json
import os
import sys
import threading
from typing import Any

import hypothesis  # noqa: F401
import numpy as np  # noqa: F401
import pytest
import torch._dynamo  # noqa: F401  the first optimizer imports it

import compression  # noqa: F401

# Of plugins that are here already, pytest says that it cannot rewrite their asserts.
QUIET = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")


def become(request: dict[str, Any]) -> None:
    """Run pytest or a program as asked, in this process, and end it."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in zip((1, 2), request["printed"], strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["program", *request["options"]]
    if "program" in request:
        exec(compile(request["program"], "program", "exec"), {"__name__": "__main__"})
        raise SystemExit(0)
    sys.argv = ["pytest", *QUIET, *request["options"]]
    raise SystemExit(pytest.main(sys.argv[1:]))


def end(error: BaseException) -> None:
    """End this process as Python does, but for its modules: to take torch down takes a second."""
    code = error.code if isinstance(error, SystemExit) else 1
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for those that are no daemons
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


def fork(request: dict[str, Any]) -> int:
    """Return the number of a process that does as asked."""
    child = os.fork()
    if child == 0:
        try:
            become(request)
        except BaseException as error:
            end(error)
    return child


def main() -> None:
    """Answer requests, a line of them at once, with the exit status of each, of a signal below 0."""
    gc.freeze()  # a collection in a fork would copy, page by page, all that is here
    for line in sys.stdin:
        children = [fork(request) for request in json.loads(line)]
        ends = [os.waitpid(child, 0)[1] for child in children]
        print(json.dumps([*map(os.waitstatus_to_exitcode, ends)]), flush=True)


if __name__ == "__main__":
    main()
