"""Batch scoring: a registered version answers all rows of files or of a table, in parts that are written exactly once.

Reads files like a snapshot, or a database table, and the registry; writes a folder of Parquet parts with a manifest, or a table.
"""

from components.serving.batch.files import Files
from components.serving.batch.folder import FolderTarget
from components.serving.batch.records import OnBadRow, ScoringManifest
from components.serving.batch.score import ScoringOutput, ScoringSettings, score
from components.serving.batch.table import TableTarget

__all__ = ["Files", "FolderTarget", "OnBadRow", "ScoringManifest", "ScoringOutput", "ScoringSettings", "TableTarget", "score"]
