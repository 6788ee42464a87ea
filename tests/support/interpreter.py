"""Triton's interpreter, and what it cannot run with."""

import importlib.util

import numpy as np


def lacking_interpreter() -> str:
    """Say why Triton's interpreter cannot run here; nothing where it can."""
    if importlib.util.find_spec("triton") is None:
        return "needs the package triton"
    import triton

    version = tuple(map(int, triton.__version__.split(".")[:2]))
    if version < (3, 7) and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        return "Triton's interpreter before 3.7 needs numpy before 2.4"
    return ""
