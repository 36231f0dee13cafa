"""Output folders: a step empties its own and never edits in place, since DVC may have linked the files into its cache."""

import shutil
from pathlib import Path


def fresh(out: Path) -> Path:
    """Empty `out`, make it if it is not there, and return it."""
    if out.is_symlink() or out.is_file():
        out.unlink()
    elif out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    return out
