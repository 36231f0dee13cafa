"""Which questions belong together: those about one context."""

import hashlib
from collections.abc import Sequence

from components.text import normalise


def group_of(context: str) -> str:
    """Return the name of the group of all questions about `context`: 16 digits of a sha256, whatever its Unicode form and spaces."""
    return hashlib.sha256(normalise(context, "NFKC").encode()).hexdigest()[:16]


def grouped(ids: Sequence[str], groups: Sequence[str]) -> bool:
    """Return whether the data came with groups; where they have none, a row's group is its id, or that without its running number."""
    return any(name != group and not name.startswith(f"{group}#") for name, group in zip(ids, groups, strict=True))
