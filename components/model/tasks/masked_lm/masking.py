"""Masking of encoded rows: a draw for each row, from its content and a number that training changes from epoch to epoch.

Of the chosen tokens 80 % become the mask token, 10 % another token, and 10 % stay: Devlin et al., "BERT" (2019), section 3.1. Nothing
is drawn from a generator that others share: an interrupted epoch goes on with the masks that it had, and evaluations share theirs.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

IGNORED = -100  # the label of a token that is not asked for
_MASKED, _OTHER = 0.8, 0.1

Ints = npt.NDArray[np.int64]
Row = Mapping[str, Any]


class Masking:
    """Makes a padded batch of rows (`input_ids`, `units`): `labels` (rows, tokens) has the token where one is asked for, else -100.

    Tokens that share a number in `units` are masked together; a negative one is never masked.
    """

    def __init__(self, tokenizer: Any, probability: float, draw: int | None = None) -> None:
        """Mask a unit with `probability`, at least one a row; `draw` None: as in every evaluation."""
        self._tokenizer, self._probability, self._draw = tokenizer, probability, draw
        special = set(tokenizer.all_special_ids)
        self._ordinary = np.array([number for number in range(len(tokenizer)) if number not in special], dtype=np.int64)

    @property
    def drawing(self) -> "Masking":
        """The same for training: `set_draw` tells it what to draw from."""
        return Masking(self._tokenizer, self._probability, draw=0)

    def set_draw(self, number: int) -> None:
        """Draw other masks from now on, those of `number`."""
        self._draw = number

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Return the batch, padded to its longest row."""
        masked = [self._mask(np.array(row["input_ids"], dtype=np.int64), np.array(row["units"], dtype=np.int64)) for row in rows]
        return {
            "input_ids": padded([ids for ids, _ in masked], self._tokenizer.pad_token_id),
            "attention_mask": padded([np.ones(len(ids), dtype=np.int64) for ids, _ in masked], 0),
            "labels": padded([labels for _, labels in masked], IGNORED),
        }

    def _mask(self, ids: Ints, units: Ints) -> tuple[Ints, Ints]:
        """Return the ids that the model sees, and the labels."""
        numbers, places = np.unique(units, return_inverse=True)
        digest = int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest())
        generator = np.random.default_rng([digest] if self._draw is None else [digest, self._draw])
        drawn = np.where(numbers < 0, 2.0, generator.random(len(numbers)))
        chosen = ((drawn < self._probability) | (drawn == drawn.min()))[places] & (units >= 0)
        how = generator.random(len(ids))
        other = self._ordinary[generator.integers(len(self._ordinary), size=len(ids))]
        seen = np.where(how < _MASKED, self._tokenizer.mask_token_id, np.where(how < _MASKED + _OTHER, other, ids))
        return np.where(chosen, seen, ids), np.where(chosen, ids, IGNORED)


def padded(rows: Sequence[Ints], value: int) -> torch.Tensor:
    """Return `rows` as one tensor (rows, longest), filled up with `value`."""
    longest = max(map(len, rows))
    return torch.from_numpy(np.stack([np.pad(row, (0, longest - len(row)), constant_values=value) for row in rows]))
