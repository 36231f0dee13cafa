"""Masking of encoded rows, drawn from the content of a row and a number per training epoch.

Of the chosen tokens 80 % become the mask token, 10 % another token, and 10 % are kept: Devlin et al., "BERT" (2019), section 3.1. No shared
random generator is used: a resumed epoch repeats its masks, and all evaluations use the same ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from components.model.support.batches import padded

IGNORED = -100  # the label of tokens that are not masked
_MASKED, _RANDOM = 0.8, 0.1

Ints = npt.NDArray[np.int64]
Row = Mapping[str, Any]


class Masking:
    """Masks and pads rows with `input_ids` and `units`; `labels` (rows, tokens) has the original token where masked, else -100.

    Tokens with equal `units` are masked together; negative ones are never masked.
    """

    def __init__(self, tokenizer: Any, probability: float, draw: int | None = None) -> None:
        """Mask each unit with `probability`, at least one per row; `draw` None: evaluation."""
        self._tokenizer, self._probability, self._draw = tokenizer, probability, draw
        special = set(tokenizer.all_special_ids)
        self._ordinary = np.array([token for token in range(len(tokenizer)) if token not in special], dtype=np.int64)

    @property
    def drawing(self) -> "Masking":
        """The collator for training, with `set_draw`."""
        return Masking(self._tokenizer, self._probability, draw=0)

    def set_draw(self, number: int) -> None:
        """Use the masks of draw `number`."""
        self._draw = number

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the batch, padded to its longest row."""
        masked = [self._mask(np.array(row["input_ids"], dtype=np.int64), np.array(row["units"], dtype=np.int64)) for row in rows]
        return {
            "input_ids": padded([ids for ids, _ in masked], self._tokenizer.pad_token_id),
            "attention_mask": padded([[1] * len(ids) for ids, _ in masked], 0),
            "labels": padded([labels for _, labels in masked], IGNORED),
        }

    def _mask(self, ids: Ints, units: Ints) -> tuple[Ints, Ints]:
        """Return the masked ids and the labels."""
        numbers, inverse = np.unique(units, return_inverse=True)
        digest = int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest())
        generator = np.random.default_rng([digest] if self._draw is None else [digest, self._draw])
        drawn = np.where(numbers < 0, 2.0, generator.random(len(numbers)))
        chosen = ((drawn < self._probability) | (drawn == drawn.min()))[inverse] & (units >= 0)
        action = generator.random(len(ids))
        random_tokens = self._ordinary[generator.integers(len(self._ordinary), size=len(ids))]
        replaced = np.where(action < _MASKED, self._tokenizer.mask_token_id, np.where(action < _MASKED + _RANDOM, random_tokens, ids))
        return np.where(chosen, replaced, ids), np.where(chosen, ids, IGNORED)
