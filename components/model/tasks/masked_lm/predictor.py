"""The predictor of masked language modelling: fills in the masks of a text or, without masks, the words chosen by `words`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model.support.batches import in_batches, padded
from components.model.support.metrics import Floats
from components.model.tasks.masked_lm import tokens, words
from components.model.tasks.masked_lm.masking import IGNORED

UNKNOWN = -1  # the token behind a mask in the input text


@dataclass(frozen=True)
class Window:
    """A part of the text `text` that fits the model: masks at `positions` of `ids` belong to the words `slots`.

    `expected` are the original tokens.
    """

    text: int
    ids: list[int]
    positions: list[int]
    slots: list[int]
    expected: list[int]


class Filler:
    """A trained masked language model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._model, self._tokenizer = model.eval(), tokenizer

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Fill in the masked words of each `text`, separated by spaces; a word with all pieces correct keeps its original spelling.

        If `rows` has the expected words, `measured` contains `log_likelihood`: nats summed over the pieces of the masked words, all masked
        at once. A word without a separate piece counts as one piece at chance.
        """
        texts = rows["text"].tolist()
        keep_masks = "label" not in rows
        windows = [window for number, text in enumerate(texts) for window in self._windows(number, text, keep_masks)]
        tokens_of: list[dict[int, list[tuple[int, int]]]] = [{} for _ in texts]
        likelihood = np.zeros(len(texts))
        filled = in_batches(windows, batch_size, lambda window: len(window.ids), self._fill)
        for window, (filled_tokens, nats) in zip(windows, filled, strict=True):
            likelihood[window.text] += nats.sum()
            for slot, token, expected in zip(window.slots, filled_tokens, window.expected, strict=True):
                tokens_of[window.text].setdefault(slot, []).append((token, expected))
        missing = [len(words.masked(text)) - len(slots) for text, slots in zip(texts, tokens_of, strict=True)]
        predicted = [self._to_words(text, slots) for text, slots in zip(texts, tokens_of, strict=True)]
        chance = np.log(len(self._tokenizer))
        return ModelOutput.texts(predicted, {"log_likelihood": likelihood - chance * np.array(missing)} if "label" in rows else None)

    def _windows(self, number: int, text: str, keep_masks: bool) -> Iterator[Window]:
        """Yield the parts of `text` that contain masks."""
        body, offsets = tokens.pieces([text], self._tokenizer, keep_masks=keep_masks)[0]
        mask = self._tokenizer.mask_token_id
        hidden = np.flatnonzero(np.array(body) == mask)
        if len(hidden):
            slots = np.full(len(body), -1, dtype=np.int64)
            slots[hidden] = np.arange(len(hidden))
        else:
            slots = words.slots(text, offsets)
        prefix, suffix = tokens.around(self._tokenizer)
        capacity = self.spec.max_length - len(prefix) - len(suffix)
        for begin, end in tokens.windows(words.owners(words.spans(text), offsets), capacity):
            positions = begin + np.flatnonzero(slots[begin:end] >= 0)
            if len(positions):
                ids = [*prefix, *np.where(slots[begin:end] >= 0, mask, body[begin:end]).tolist(), *suffix]
                expected = [UNKNOWN if len(hidden) else body[position] for position in positions]
                yield Window(number, ids, (positions - begin + len(prefix)).tolist(), slots[positions].tolist(), expected)

    def _fill(self, batch: Sequence[Window]) -> list[tuple[list[int], Floats]]:
        """Return for each mask of each window the most likely token, and the log-likelihood of the original one."""
        ids = padded([window.ids for window in batch], self._tokenizer.pad_token_id)
        attended = padded([[1] * len(window.ids) for window in batch], 0)
        labels = torch.full_like(ids, IGNORED)
        for row, window in enumerate(batch):
            labels[row, window.positions] = torch.tensor([max(token, 0) for token in window.expected])
        with torch.inference_mode():
            logits = torch.log_softmax(self._model(input_ids=ids, attention_mask=attended, labels=labels).logits[0].float(), dim=-1)
        nats = logits.gather(1, labels[labels != IGNORED][:, None])[:, 0].double().numpy()
        filled = logits.argmax(dim=-1).numpy()
        cuts = np.cumsum([len(window.positions) for window in batch])[:-1]
        return [(part.tolist(), likelihoods) for part, likelihoods in zip(np.split(filled, cuts), np.split(nats, cuts), strict=True)]

    def _to_words(self, text: str, slots: dict[int, list[tuple[int, int]]]) -> str:
        """Return the predicted words of `text` in order."""
        spans = words.masked(text)
        has_masks = any(expected == UNKNOWN for pieces in slots.values() for _, expected in pieces)
        shown = []
        for slot in range(len(slots) if has_masks else len(spans)):
            pieces = slots.get(slot, [])
            right = bool(pieces) and all(token == expected != self._tokenizer.unk_token_id for token, expected in pieces)
            decoded = self._tokenizer.decode([token for token, _ in pieces], skip_special_tokens=True)
            shown.append(text[slice(*spans[slot])] if right else "".join(decoded.split()) or words.EMPTY)
        return " ".join(shown)
