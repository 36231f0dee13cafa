"""The folder for work in progress: `var/` of the workspace, outside DVC, which empties a stage's outputs before a retry."""

import os
from pathlib import Path

STATE = "RETUNE_VAR"  # the environment variable that replaces `var/`


def state_folder(name: str) -> Path:
    """Return the folder `name` below `var/`, or below RETUNE_VAR if it is set."""
    return Path(os.environ.get(STATE, "var")) / name
