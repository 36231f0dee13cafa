"""Check from the metadata of the files, before the first row is written, that the rows of a source fit on the disk."""

import shutil
from pathlib import Path

from components.core.errors import BadSource, Unavailable
from components.data.snapshot import parquet
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.sources import FetchedFiles
from components.data.snapshot.tables import READERS, format_of

_SMALL = 256 << 20  # bytes that a file of any size may expand to


def check_disk_space(fetched: FetchedFiles, snapshot: SnapshotParams, folder: Path) -> None:
    """Check that the rows of all files fit into `folder`, and that no Parquet file expands beyond `snapshot.max_growth`.

    Raises:
        BadSource: a Parquet file expands too much.
        Unavailable: the disk has less space than the rows need.
    """
    free, needed = shutil.disk_usage(folder).free, 0
    for path, name in fetched.files.items():
        size = path.stat().st_size
        if READERS[format_of([path])] is not parquet:
            needed += size // 2  # UTF-16 text is half as long in UTF-8
            continue
        limit = max(_SMALL, size * snapshot.max_growth)
        user_file = fetched.format == "parquet"  # the rows of a database are in a file that Retune wrote
        text = parquet.text_bytes(path, min(limit, free) if user_file else free)
        if user_file and text > limit:
            raise BadSource(
                f"{name}: {size:,} bytes expand to more than {limit / 2**20:,.0f} MiB of rows; expected at most {snapshot.max_growth:,} "
                "times the file's size. If that is right, raise snapshot.max_growth"
            )
        needed += text
    if needed > free:
        raise Unavailable(f"the rows of {fetched.source} need at least {_mib(needed)}, but only {_mib(free)} are free in {folder.parent}")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
