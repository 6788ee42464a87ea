"""A module in a process of its own: one line of JSON per request, one per answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from compression.errors import CompressionError


class Process:
    """The client: starts `python -m module`, sends requests, ends it."""

    def __init__(self, module: str, arguments: dict[str, Any], *, log: Path | None = None) -> None:
        """Start it with this process's import path; what it prints on stderr goes to `log`.

        `arguments` are its options by name; None leaves one out.
        """
        path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *sys.path])
        options = {name: value for name, value in arguments.items() if value is not None}
        self._module, self._log = module, log
        output = log.open("w") if log else nullcontext()
        with output as stderr:  # the child keeps a handle of its own
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *(f"--{n}={value}" for n, value in options.items())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": path},
                text=True,
            )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to one request; CompressionError for an error or an early end."""
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        try:
            print(json.dumps(request), file=pipes.stdin, flush=True)
            line = pipes.stdout.readline()
        except OSError:  # a broken pipe: it has ended before
            line = ""
        if not line:
            tail = "\n".join(self._log.read_text().splitlines()[-20:]) if self._log else "see above"
            status = pipes.wait()
            how = f"was killed by signal {-status}" if status < 0 else f"ended ({status})"
            raise CompressionError(f"{self._module} {how} at {request}: {tail}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CompressionError(f"{self._module}: {answer['error']}")
        return answer

    @property
    def is_alive(self) -> bool:
        """Tell whether the process can be asked again."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(OSError):  # a request that it has never read
                    pipe.close()
        self._process.wait(timeout=60)


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Answer requests, whose fields are the arguments, until they end.

    What a library prints on stdout goes to stderr: it must not look like an answer.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = answer(**json.loads(line))
        except CompressionError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=answers, flush=True)
