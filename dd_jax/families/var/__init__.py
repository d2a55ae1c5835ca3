"""VAR: next-scale order over a residual pyramid."""
