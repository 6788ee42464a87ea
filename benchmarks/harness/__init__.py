"""What pytest-benchmark lacks: replayed clocks, interleaved pairs, the gate, the table, the figures."""
