"""The regression gate: a run compared with a saved one, by size, accuracy and speed-up."""
