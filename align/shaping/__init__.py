"""Several rewards per sample to one score, and on to the signal that a loss learns from."""
