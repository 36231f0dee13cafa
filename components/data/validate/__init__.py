"""Validate a snapshot with Great Expectations.

Reads a snapshot (`data/raw`); writes `kept.parquet`, `quarantine.parquet` with a reason per row, and `report.json`.
Importing this package does not import Great Expectations, which takes seconds; its module `step` does.
"""

from components.data.validate.settings import ValidateParams, check_label_map

__all__ = ["ValidateParams", "check_label_map"]
