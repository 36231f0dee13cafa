"""Batch scoring as a command and as a Prefect flow."""
