"""Validate a snapshot with Great Expectations.

Reads a snapshot (`data/raw`); writes `kept.parquet`, `quarantine.parquet` with a reason per row, and `report.json`.
Importing this package does not import Great Expectations, which takes seconds; only running the checks does.
"""

from components.data.validate.settings import ValidateParams, check_label_map
from components.data.validate.step import validate

__all__ = ["ValidateParams", "check_label_map", "validate"]
