"""What is new in a snapshot."""

from pathlib import Path

import pandas as pd


def new_labels(earlier: Path, now: Path) -> int:
    """Return how many rows of the snapshot `now` are not in `earlier`."""
    old, new = (pd.concat([pd.read_parquet(part) for part in sorted(folder.glob("*.parquet"))]) for folder in (earlier, now))
    return len(set(map(tuple, new.astype(str).to_numpy())) - set(map(tuple, old.astype(str).to_numpy())))
