"""The tokenizer of question answering."""

from pathlib import Path
from typing import Any

from components.errors import BadModel
from components.tasks import _pretrained


def load_tokenizer(base: Path) -> Any:
    """Load the tokenizer of a model folder; padding goes to the right, so that a batch moves no token.

    Raises:
        BadModel: there is none, or it cannot tell which characters a token stands for.
    """
    tokenizer = _pretrained.load_tokenizer(base)
    if not tokenizer.is_fast:
        raise BadModel(f"the tokenizer in {base} has no offsets to characters, which answers need: a fast one (tokenizer.json) has them")
    tokenizer.padding_side = "right"
    return tokenizer
