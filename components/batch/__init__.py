"""Batch scoring: a registered version answers all rows of files or of a table, in parts that are written exactly once.

Reads files as a snapshot does, a table of a database, and the registry; writes a folder of Parquet parts with a manifest, or a table.
"""

from components.batch.files import Files
from components.batch.folder import Folder
from components.batch.records import Manifest, OnBadRow
from components.batch.score import Output, Settings, score
from components.batch.table import Table

__all__ = ["Files", "Folder", "Manifest", "OnBadRow", "Output", "Settings", "Table", "score"]
