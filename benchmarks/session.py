"""A run of the benchmarks: what it prints while it prepares, how it ends, what it says of itself."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from benchmarks.baseline import Data, Workload
from benchmarks.baseline.progress import LINE_EVERY_S
from benchmarks.options import device_names, devices, place_of, training_kind
from compression.errors import CompressionError


@contextmanager
def end_on_error(session: pytest.Session) -> Iterator[None]:
    """End the run with one sentence where something that every test needs is missing."""
    try:
        yield
        return
    except CompressionError as error:
        reason = str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"
    if hasattr(session.config, "workerinput"):  # where xdist takes an exit for a crash
        session.shouldstop = reason
        pytest.fail(reason, pytrace=False)
    pytest.exit(reason, returncode=pytest.ExitCode.USAGE_ERROR)  # once, and not in every test


def line_printer(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line at once, past pytest's capture."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")

    def print_line(line: str) -> None:
        if reporter is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(line)

    return print_line


class Minutes:
    """Says of a long step, once per minute, that it goes on, and for how long by now."""

    def __init__(
        self, what: str, report: Callable[[str], None], *, every_s: float = LINE_EVERY_S
    ) -> None:
        """Start the clock; `report` receives the lines, of which a short step has none."""
        self.what, self.report, self.every_s = what, report, every_s
        self.began = self.said = time.monotonic()
        self.doing = "it goes on"

    def note(self, doing: str) -> None:
        """Let the next line say what is done."""
        self.doing = doing

    def tick(self) -> None:
        """Report what is done, where nothing was reported for a minute."""
        now = time.monotonic()
        if now - self.said >= self.every_s:
            self.said = now
            self.report(f"{self.what}: {self.doing}, {(now - self.began) / 60:.1f} min by now")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Report from a thread, while what is done within cannot."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(self.every_s):
                self.tick()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def minutes(config: pytest.Config, what: str) -> Minutes:
    """Return what reports a long step on the terminal, nothing with -q."""
    quiet = config.get_verbosity() < 0
    return Minutes(what, (lambda _: None) if quiet else line_printer(config))


def suite_facts(config: pytest.Config, workload: Workload, data: Data) -> dict[str, Any]:
    """Return what the gate compares of two runs: their machine, data, and start of the training."""
    kinds = devices(config)
    return {
        "workload": workload.name,
        "data": data.title,
        "device_name": device_names(kinds),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dataset_fingerprint": data.fingerprint(),
        "seed": workload.recipe_on(place_of(training_kind(kinds))).seed,
    }
