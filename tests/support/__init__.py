"""Networks drawn at random from every operator that real code uses, as source that can be read.

A `Program` is the Python text of a small network: a failing example is pasted as a named test
(tests/compression/test_drawn_faults.py). drawing.py draws one, by
hypothesis or by a seed.
"""
