"""Write files and folders to DVC's cache without running DVC."""

import hashlib
import json
from pathlib import Path

from flows.dvc_adapter.config import cache_folder


def keep(root: Path, content: bytes, suffix: str = "") -> str:
    """Put an object into the cache of `root` and return its name."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = cache_folder(root) / "files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5


def keep_folder(root: Path, files: dict[str, bytes]) -> str:
    """Put a folder of files into the cache of `root` and return its name."""
    listing = [{"md5": keep(root, content), "relpath": name} for name, content in files.items()]
    return keep(root, json.dumps(listing).encode(), ".dir")
