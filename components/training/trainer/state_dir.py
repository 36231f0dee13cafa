"""Where work in progress is kept: `var/` of the workspace, outside DVC, which empties a stage's outputs before a retry."""

import os
from pathlib import Path

STATE = "RETUNE_VAR"  # names the folder in place of `var/`


def state_folder(name: str) -> Path:
    """Return the folder `name` below `var/`, or below what RETUNE_VAR names."""
    return Path(os.environ.get(STATE, "var")) / name
