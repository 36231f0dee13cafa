"""Which questions belong together: those about one context."""

import hashlib

from components.core.text import normalise


def group_of(context: str) -> str:
    """Return the name of the group of all questions about `context`: 16 digits of a sha256, whatever its Unicode form and spaces."""
    return hashlib.sha256(normalise(context, "NFKC").encode()).hexdigest()[:16]
