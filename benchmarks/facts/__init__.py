"""Recorded facts: what a benchmark measured, for the JSON, the table, the figures and the gate."""
