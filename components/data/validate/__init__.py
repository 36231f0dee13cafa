"""Great Expectations lives here and nowhere else.

Reads a snapshot (`data/raw`); writes `kept.parquet`, `quarantine.parquet` with a reason a row, and `report.json`.
Importing this package does not import Great Expectations, which takes seconds: only carrying out the checks does.
"""

from components.data.validate.settings import ValidateParams, check_label_map
from components.data.validate.step import validate

__all__ = ["ValidateParams", "check_label_map", "validate"]
