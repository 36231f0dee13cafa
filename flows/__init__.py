"""The stories that Prefect tells: when, in which order, retried how often; no arithmetic, no `if` on data."""
