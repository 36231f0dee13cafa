"""The tokenizer of question answering."""

from pathlib import Path
from typing import Any

from components.core.errors import BadModel
from components.model.support import pretrained


def load_tokenizer(base: Path) -> Any:
    """Load the tokenizer of a model folder; a batch is padded on the right, so that no token moves, and contexts are cut from the left on.

    Raises:
        BadModel: there is none, or it cannot tell which characters a token stands for.
    """
    tokenizer = pretrained.load_tokenizer(base)
    if not tokenizer.is_fast:
        raise BadModel(f"the tokenizer in {base} has no offsets to characters, which answers need: a fast one (tokenizer.json) has them")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer
