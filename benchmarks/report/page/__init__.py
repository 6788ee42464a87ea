"""The report: one HTML page of saved runs, from their facts to its sections."""
