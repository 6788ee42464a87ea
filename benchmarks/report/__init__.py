"""What a run prints and draws: rows, the table and the figures."""
