"""Other rows in EXECUTORS for the length of a test."""

from dataclasses import replace
from typing import Any

import pytest

from compression.integer import EXECUTORS


def put(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Change fields of an executor's row, which lacks nothing here unless that is changed, too."""
    here: dict[str, Any] = {"packages": (), "missing": lambda: None}
    monkeypatch.setitem(EXECUTORS, name, replace(EXECUTORS[name], **here | changes))


def prefer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let deploy take `name` alone without being asked."""
    for other, row in EXECUTORS.items():
        monkeypatch.setitem(EXECUTORS, other, replace(row, preferred=other == name))
