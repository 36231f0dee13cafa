"""Prefect: the adapter, the managed server, and requests to its API."""
