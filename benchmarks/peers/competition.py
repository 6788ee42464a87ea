"""The engines' processes, their files, and the races that they run."""

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.machine.process import Process
from benchmarks.peers.engines import ENGINES, Engine
from benchmarks.timing.race import race
from compression.integer import lacking

BUDGET_S = 150.0


def missing(engine: Engine) -> str | None:
    """Say what an engine lacks here, None where it can run."""
    absent = [p for p in engine.packages if importlib.util.find_spec(p) is None]
    if absent:
        return f"{engine} needs {', '.join(absent)}: pip install -e '.[test,peers]'"
    unknown = [p for p in engine.programs if shutil.which(p) is None]
    if unknown:
        return f"{engine} needs the program {', '.join(unknown)}"
    return lacking(engine.executor) if engine.executor else None


class Competition:
    """Each engine in its own process; each file, evaluation and race is made once.

    `folder` holds baseline.safetensors (the workload's trained network) and images.safetensors
    (calibration, validation and test inputs, labels of the test).
    """

    def __init__(
        self,
        workload: str,
        folder: Path,
        engines: Sequence[Engine] = ENGINES,
        *,
        budget_s: float = BUDGET_S,
        num_classes: int | None = None,
    ) -> None:
        """Start nothing yet; a race takes about `budget_s`. `num_classes` are a named network's."""
        self.num_classes = num_classes
        self.workload, self.folder, self.budget_s = workload, folder, budget_s
        self.engines = [engine for engine in engines if missing(engine) is None]
        self._processes: dict[Engine, Process] = {}
        self._built: dict[Engine, dict[str, Any]] = {}
        self._evaluated: dict[Engine, dict[str, Any]] = {}
        self._outputs: dict[Engine, Tensor] = {}
        self._raced: dict[int, dict[str, tuple[float, ...]]] = {}

    def file_facts(self, engine: Engine) -> dict[str, Any]:
        """Return path, bytes and seconds of the engine's file, all its parts included."""
        if engine not in self._built:
            path = self.folder / engine.name / f"model{engine.suffix}"
            path.parent.mkdir()
            seconds = self._process(engine).ask(do="build", path=str(path))["seconds"]
            stored_bytes = sum(file.stat().st_size for file in path.parent.glob("model.*"))
            facts = {"path": str(path), "seconds": seconds, "stored_bytes": stored_bytes}
            self._built[engine] = facts
        return self._built[engine]

    def evaluation(self, engine: Engine) -> dict[str, Any]:
        """Return the engine's correct test images."""
        if engine not in self._evaluated:
            path = self.file_facts(engine)["path"]
            self._evaluated[engine] = self._process(engine).ask(do="evaluate", path=path)
        return self._evaluated[engine]

    def outputs(self, engine: Engine) -> Tensor:
        """Return what the engine's file gives for the validation images, float32."""
        if engine not in self._outputs:
            path = self.file_facts(engine)["path"]
            answer = self._process(engine).ask(do="predict_all", path=path)
            self._outputs[engine] = load_file(answer["outputs"])["outputs"]
        return self._outputs[engine]

    def ran(self, engine: Engine, batch_size: int) -> dict[str, Any]:
        """Return the integer kernels of one prediction, and the layers that are computed in float."""
        self.times(batch_size)
        answer = self._process(engine).ask(do="look", batch_size=batch_size)
        return {key: answer[key] for key in ("integer_kernels", "stayed")}

    def times(self, batch_size: int) -> dict[str, tuple[float, ...]]:
        """Return the seconds of every engine that is installed, by name, round by round."""
        if batch_size not in self._raced:
            for engine in self.engines:
                path = self.file_facts(engine)["path"]
                self._process(engine).ask(do="start", path=path, batch_size=batch_size)
            competitors: dict[str, Callable[[], float]] = {
                engine.name: partial(_seconds, self._process(engine)) for engine in self.engines
            }
            self._raced[batch_size] = race(competitors, budget_s=self.budget_s)
        return self._raced[batch_size]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.close()

    def _process(self, engine: Engine) -> Process:
        if engine not in self._processes:
            arguments = {
                "engine": engine,
                "workload": self.workload,
                "baseline": self.folder / "baseline.safetensors",
                "images": self.folder / "images.safetensors",
                "num-threads": torch.get_num_threads(),
                "num-classes": self.num_classes,
            }
            log = self.folder / f"{engine}.log"
            self._processes[engine] = Process("benchmarks.peers.worker", arguments, log=log)
        return self._processes[engine]


def _seconds(process: Process) -> float:
    return float(process.ask(do="time")["seconds"])
