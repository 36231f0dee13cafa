"""Orchestration with Prefect: when, in which order, with how many retries; no arithmetic, no `if` on data."""
