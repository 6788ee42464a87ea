"""Tests of compression/ and benchmarks/."""
