"""Whether there is room for the rows of a source, by what its files declare: looked at before the first row is written."""

import shutil
from pathlib import Path

from components.core.errors import BadSource, Unavailable
from components.data.snapshot import parquet
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.sources import FetchedFiles
from components.data.snapshot.tables import READERS, format_of

_SMALL = 256 << 20  # bytes that may come of a file of any size


def check_room(brought: FetchedFiles, snapshot: SnapshotParams, folder: Path) -> None:
    """Check that the rows of all files fit into `folder`, and that no Parquet file has far more text than bytes.

    Raises:
        BadSource: one has: snapshot.max_growth.
        Unavailable: there is less room than the rows take at least.
    """
    free, needed = shutil.disk_usage(folder).free, 0
    for path, called in brought.files.items():
        size = path.stat().st_size
        if READERS[format_of([path])] is not parquet:
            needed += size // 2  # a UTF-16 text is half as long in UTF-8
            continue
        limit = max(_SMALL, size * snapshot.max_growth)
        foreign = brought.format == "parquet"  # the answer of a database is in a file of ours
        text = parquet.text_bytes(path, min(limit, free) if foreign else free)
        if foreign and text > limit:
            raise BadSource(
                f"{called}: {size:,} bytes, of which come more than {limit / 2**20:,.0f} MiB of rows; expected at most "
                f"{snapshot.max_growth:,} times the file's size. If that is right, set snapshot.max_growth higher"
            )
        needed += text
    if needed > free:
        raise Unavailable(f"the rows of {brought.source} take {_mib(needed)} at least, and {_mib(free)} are free in {folder.parent}")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
