"""Where things lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
REFERENCES = ROOT / "benchmarks" / "references"
