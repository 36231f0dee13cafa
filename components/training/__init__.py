"""Training: the search for settings and the final training."""
