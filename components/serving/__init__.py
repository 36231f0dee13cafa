"""Serving a registered version: in batches, and over HTTP."""
