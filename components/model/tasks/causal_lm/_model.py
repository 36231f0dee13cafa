"""Language models in torch: loaded, what their batches are, how they write, and how likely they find a text.

Imported only where a model is at hand, for it imports torch.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.model.support import generation, pretrained
from components.model.tasks.causal_lm import Task
from components.model.tasks.causal_lm._texts import IGNORED, Ids, labels, windows

_CLOSE = 1e-4  # float32 rounding stays far below
_PASS = 8  # rows of a pass that needs all logits


def build(base: Path, tokenizer: Any, task: Task, spec: ModelSpec) -> Any:
    """Load the model in `base`; see `Task.build_model`."""
    options = task.options
    if options.max_new_tokens >= spec.max_length:
        raise BadParams(
            f"params.yaml: task_options.max_new_tokens is {options.max_new_tokens}, expected below preprocess.max_length "
            f"{spec.max_length}, which holds what is read and what is written"
        )
    model = pretrained.load_model("AutoModelForCausalLM", base, head=False)
    if len(tokenizer) > (rows := model.get_input_embeddings().weight.shape[0]):
        raise BadModel(f"the tokenizer in {base} has {len(tokenizer)} tokens, and the model's embeddings {rows}")
    _refuse_unfit(model, base, options.packing)
    model.config.pad_token_id = tokenizer.pad_token_id
    reader = task.reader(tokenizer)
    chat = options.data == "chat"
    model.generation_config.eos_token_id = reader.stops() if chat else [tokenizer.eos_token_id]
    model.generation_config = generation.generation_config(model, tokenizer, max_new_tokens=options.max_new_tokens)
    if chat and reader.template.stop:
        model.generation_config.stop_strings = [reader.template.stop]
    return model


def _refuse_unfit(model: Any, base: Path, packing: bool) -> None:
    """Refuse a model whose token sees what follows it, and, where texts are packed, one whose text sees the text before it."""
    model.eval()
    one, other, third = (torch.arange(4)[None] + 3 * place for place in range(3))
    positions = torch.cat([torch.arange(4), torch.arange(4)])[None]
    with torch.inference_mode():
        alone = model(input_ids=other, use_cache=False).logits
        followed = model(input_ids=torch.cat([other, one], 1), use_cache=False).logits[:, :4]
        if not torch.allclose(alone, followed, atol=_CLOSE):
            raise BadModel(f"the model in {base} reads ahead: a {model.config.model_type} like this one cannot write from left to right")
        if packing:
            behind = [
                model(input_ids=torch.cat([each, other], 1), position_ids=positions, use_cache=False).logits[:, 4:] for each in (one, third)
            ]
            if not all(torch.allclose(alone, each, atol=_CLOSE) for each in behind):
                raise BadModel(
                    f"the model in {base} is a {model.config.model_type}, which does not keep packed texts apart; "
                    "set task_options.packing: false"
                )


class Collator:
    """Makes a batch of encoded rows, padded on the right.

    Padding may be the end token, which is learnt: what counts is said by the labels, and what is seen by the attention mask. Packed
    rows have no mask: transformers keeps their texts apart where positions begin anew, and only without mask and cache.
    """

    def __init__(self, pad: int, packed: bool) -> None:
        """Pad with the token id `pad`."""
        self._pad = pad
        self._packed = packed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch as tensors."""
        ids = _padded([row["input_ids"] for row in rows], self._pad)
        batch = {"input_ids": ids, "labels": _padded([row["labels"] for row in rows], IGNORED), "use_cache": False}
        if self._packed:
            return batch | {"position_ids": _padded([row["position_ids"] for row in rows], 0)}
        return batch | {"attention_mask": _padded([[1] * len(row["input_ids"]) for row in rows], 0)}


def _padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    width = max(map(len, rows))
    filled = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*fill, *row] if left else [*row, *fill] for row, fill in zip(rows, filled, strict=True)], dtype=torch.long)


class Writer:
    """A language model that continues raw rows; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path, task: Task, spec: ModelSpec) -> None:
        """Load the model in `folder`.

        Raises:
            NotThere: the folder is missing.
            BadModel: it holds no model that may be loaded.
        """
        self.spec = spec
        self._task = task
        self._tokenizer = task.load_tokenizer(folder)
        self._model = build(folder, self._tokenizer, task, spec).eval()
        self._reader = task.reader(self._tokenizer)

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Continue each row greedily; with the expected answers, also say how likely the model finds them.

        Raises:
            BadData: a row is no conversation.
        """
        room = self.spec.max_length - self._task.options.max_new_tokens
        asked = [ids[-room:] for ids in self._task.asked(rows, self._tokenizer)]
        answers = [""] * len(asked)
        order = sorted(range(len(asked)), key=lambda place: (len(asked[place]), asked[place]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, written in zip(places, self._write([asked[place] for place in places]), strict=True):
                answers[place] = written
        return ModelOutput.texts(answers, self._measured(rows) if "label" in rows else None)

    def _write(self, asked: list[list[int]]) -> list[str]:
        ids = _padded(asked, self._tokenizer.pad_token_id, left=True)
        mask = _padded([[1] * len(each) for each in asked], 0, left=True)
        with torch.inference_mode():
            written = self._model.generate(input_ids=ids, attention_mask=mask, tokenizer=self._tokenizer)[:, ids.shape[1] :].tolist()
        stops = self._model.generation_config.eos_token_id
        answers = [list(itertools.takewhile(lambda token: token not in stops, row)) for row in written]  # an end may be no special token
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [self._reader.template.answer(text) if self._task.options.data == "chat" else text.strip() for text in texts]

    def _measured(self, rows: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
        """Return the log-likelihood (nats) of what is expected, its tokens, those that are the likeliest, and its UTF-8 bytes."""
        parts = [
            (place, part)
            for place, row in enumerate(self._task.expected(rows, self._tokenizer))
            for part in windows(row, self.spec.max_length)
        ]
        parts.sort(key=lambda found: (len(found[1].ids), found[1].ids))
        sums = np.zeros((len(rows), 3))
        for start in range(0, len(parts), _PASS):
            batch = parts[start : start + _PASS]
            np.add.at(sums, [place for place, _ in batch], self._likelihood([part for _, part in batch]))
        return self._task.measured(rows, sums)

    def _likelihood(self, parts: list[Ids]) -> npt.NDArray[np.float64]:
        collate = Collator(self._tokenizer.pad_token_id, packed=False)
        batch = collate([{"input_ids": part.ids, "labels": labels(part)} for part in parts])
        wanted = batch.pop("labels")
        with torch.inference_mode():
            found = generation.teacher_forced(self._model(**batch).logits[:, :-1], wanted[:, 1:])
        return np.asarray(found.numpy(), dtype=np.float64)
