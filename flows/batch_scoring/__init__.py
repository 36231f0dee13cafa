"""Batch scoring as a command (`scoring`) and as a Prefect flow (`flow`)."""
