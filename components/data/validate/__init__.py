"""Validate a snapshot with Great Expectations.

Reads a snapshot (`data/raw`); writes `kept.parquet`, `quarantine.parquet` with a reason per row, and `report.json`.
The settings do not import Great Expectations, which takes seconds; the module `step` does.
"""
