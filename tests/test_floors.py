"""The drawing of the house holds: no import upward, none between rooms of one floor."""

import ast
from pathlib import Path

from tests.support.places import ROOT

FLOORS = {
    "compression": [
        {"errors"},
        {"modes", "paths"},
        {"layers", "affine", "bits", "training", "atomic", "architectures"},
        {"graph", "weights"},
        {"pruning", "clustering", "recalibration", "quantization", "distillation", "accounting"},
        {"storage", "integer", "semi_structured"},
    ],
    "benchmarks": [
        {"facts", "machine"},
        {"report", "gate", "baseline"},
        {"timing", "workloads", "storage_costs", "coverage"},
        {"options", "techniques", "gpu_training", "verifier", "peers"},
        {"artifact"},
        {"deployment"},
        {"conftest", "test_size", "test_accuracy", "test_latency", "test_cost"}
        | {"test_peers", "test_integer", "test_integer_cuda", "test_storage", "test_training"},
    ],
}


def rooms(package: str) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if room != "__init__":
            found.setdefault(room, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def test_every_room_stands_on_a_floor() -> None:
    for package, floors in FLOORS.items():
        assert set(rooms(package)) == set.union(*floors), package


def test_no_import_goes_upward_or_sideways() -> None:
    wrong = []
    for package, floors in FLOORS.items():
        level = {room: i for i, floor in enumerate(floors) for room in floor}
        for room, paths in rooms(package).items():
            for path in paths:
                for name in imported(path):
                    parts = name.split(".")
                    if parts[0] != package or parts[1] == room:
                        continue
                    if level.get(parts[1], 99) >= level[room]:
                        wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def test_compression_knows_nothing_of_benchmarks() -> None:
    for paths in rooms("compression").values():
        for path in paths:
            assert not {n for n in imported(path) if n.split(".")[0] == "benchmarks"}, path
