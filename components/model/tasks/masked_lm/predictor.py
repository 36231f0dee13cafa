"""A trained model that fills in words: those that a text hides behind its mask token or, where it hides none, those that `words` names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model.support import pretrained
from components.model.tasks.masked_lm import model as masked
from components.model.tasks.masked_lm import tokens, words
from components.model.tasks.masked_lm.masking import IGNORED, padded

UNKNOWN = -1  # the token behind a mask that the text itself has


@dataclass(frozen=True)
class Window:
    """A part of the text number `text` that fits the model: at `places` of `ids` stand masks, pieces of the words number `slots`.

    `wanted` are the tokens that stood there.
    """

    text: int
    ids: list[int]
    places: list[int]
    slots: list[int]
    wanted: list[int]


class Filler:
    """A model, its tokenizer and its contract."""

    def __init__(self, model: Any, tokenizer: Any, spec: ModelSpec) -> None:
        """Hold what `load` loads."""
        self.spec = spec
        self._model, self._tokenizer = model.eval(), tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Filler":
        """Load a saved model folder.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        return cls(masked.load(folder), pretrained.load_tokenizer(folder), ModelSpec.read(folder))

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer each `text` with the words filled in, a space between; a word that is right in every piece stands as it is written.

        Where `rows` has the expected words, `measured` has `log_likelihood`: nats, summed over the pieces of the words asked for, all
        of which are masked at once. A word none of whose pieces is its own counts as one piece at chance.
        """
        texts = rows["text"].tolist()
        asks = "label" not in rows
        windows = [window for number, text in enumerate(texts) for window in self._windows(number, text, asks)]
        found: list[dict[int, list[tuple[int, int]]]] = [{} for _ in texts]
        likelihood = np.zeros(len(texts))
        order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
        for start in range(0, len(order), batch_size):
            batch = [windows[place] for place in order[start : start + batch_size]]
            for window, filled, told in zip(batch, *self._fill(batch), strict=True):
                likelihood[window.text] += told.sum()
                for slot, token, wanted in zip(window.slots, filled, window.wanted, strict=True):
                    found[window.text].setdefault(slot, []).append((token, wanted))
        missing = [len(words.asked(text)) - len(slots) for text, slots in zip(texts, found, strict=True)]
        predicted = [self._written(text, slots) for text, slots in zip(texts, found, strict=True)]
        chance = np.log(len(self._tokenizer))
        return ModelOutput.texts(predicted, {"log_likelihood": likelihood - chance * np.array(missing)} if "label" in rows else None)

    def _windows(self, number: int, text: str, asks: bool) -> Iterator[Window]:
        """Yield the parts of `text` in which something is asked for."""
        body, offsets = tokens.pieces([text], self._tokenizer, asks=asks)[0]
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
            places = begin + np.flatnonzero(slots[begin:end] >= 0)
            if len(places):
                seen = [*prefix, *np.where(slots[begin:end] >= 0, mask, body[begin:end]).tolist(), *suffix]
                wanted = [UNKNOWN if len(hidden) else body[place] for place in places]
                yield Window(number, seen, (places - begin + len(prefix)).tolist(), slots[places].tolist(), wanted)

    def _fill(self, batch: Sequence[Window]) -> tuple[list[list[int]], list[npt.NDArray[np.float64]]]:
        """Return the likeliest token at each place of each window, and the log-likelihood of the one that stood there."""
        ids = padded([np.array(window.ids) for window in batch], self._tokenizer.pad_token_id)
        attended = padded([np.ones(len(window.ids), dtype=np.int64) for window in batch], 0)
        labels = torch.full_like(ids, IGNORED)
        for row, window in enumerate(batch):
            labels[row, window.places] = torch.tensor([max(token, 0) for token in window.wanted])
        with torch.inference_mode():
            logits = torch.log_softmax(self._model(input_ids=ids, attention_mask=attended, labels=labels).logits[0].float(), dim=-1)
        told = logits.gather(1, labels[labels != IGNORED][:, None])[:, 0].double().numpy()
        filled = logits.argmax(dim=-1).numpy()
        cuts = np.cumsum([len(window.places) for window in batch])[:-1]
        return [part.tolist() for part in np.split(filled, cuts)], np.split(told, cuts)

    def _written(self, text: str, slots: dict[int, list[tuple[int, int]]]) -> str:
        """Return the words of `text` as the model has them, in the order of their numbers."""
        spans = words.asked(text)
        hidden = any(wanted == UNKNOWN for pieces in slots.values() for _, wanted in pieces)
        shown = []
        for slot in range(len(slots) if hidden else len(spans)):
            pieces = slots.get(slot, [])
            right = bool(pieces) and all(token == wanted != self._tokenizer.unk_token_id for token, wanted in pieces)
            decoded = self._tokenizer.decode([token for token, _ in pieces], skip_special_tokens=True)
            shown.append(text[slice(*spans[slot])] if right else "".join(decoded.split()) or words.EMPTY)
        return " ".join(shown)
