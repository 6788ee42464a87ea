"""Networks drawn at random from every operator that real code uses, as source that can be read.

A `Program` is the Python text of a small network: a failing example is pasted as a named test
(tests/compression/test_drawn_faults.py). `programs` draws one for hypothesis, `program_of_seed`
without it.
"""

from tests.support.drawing import program_of_seed, programs
from tests.support.program import Program

__all__ = ["Program", "program_of_seed", "programs"]
