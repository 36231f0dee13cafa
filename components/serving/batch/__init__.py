"""Batch scoring: a registered version answers all rows of files or of a table, in parts that are written exactly once.

Reads files as a snapshot does, a table of a database, and the registry; writes a folder of Parquet parts with a manifest, or a table.
"""

from components.serving.batch.files import Files
from components.serving.batch.folder import Folder
from components.serving.batch.records import Manifest, OnBadRow
from components.serving.batch.score import Output, Settings, score
from components.serving.batch.table import Table

__all__ = ["Files", "Folder", "Manifest", "OnBadRow", "Output", "Settings", "Table", "score"]
