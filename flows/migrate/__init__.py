"""Migrate an embedded registry to a shared stack: runs, versions, artifacts, ledger, studies and DVC's cache.

The source is only read; the target must be empty or contain the result of an earlier migration of the same state.
"""
