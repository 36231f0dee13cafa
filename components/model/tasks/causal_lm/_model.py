"""Language models in torch: loading, collation, generation and likelihoods. Imported on demand, because it imports torch."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.model.support import generation, pretrained
from components.model.support.batches import in_batches, padded
from components.model.support.metrics import Floats
from components.model.tasks.causal_lm import Task
from components.model.tasks.causal_lm._texts import IGNORED, Ids, labels, windows

_TOLERANCE = 1e-4  # far above float32 rounding
_BATCH = 8  # rows per pass that needs all logits


def build(base: Path, tokenizer: Any, task: Task, spec: ModelSpec) -> Any:
    """Load the model in `base`; see `Task.build_model`."""
    options = task.options
    if options.max_new_tokens >= spec.max_length:
        raise BadParams(
            f"params.yaml: task_options.max_new_tokens is {options.max_new_tokens}, expected below preprocess.max_length "
            f"{spec.max_length}, which includes prompt and answer"
        )
    model = pretrained.load_model("AutoModelForCausalLM", base, head=False)
    if len(tokenizer) > (rows := model.get_input_embeddings().weight.shape[0]):
        raise BadModel(f"the tokenizer in {base} has {len(tokenizer)} tokens, but the model has {rows} embeddings")
    _check_causal(model, base, options.packing)
    model.config.pad_token_id = tokenizer.pad_token_id
    reader = task.reader(tokenizer)
    chat = options.data == "chat"
    model.generation_config.eos_token_id = reader.stops() if chat else [tokenizer.eos_token_id]
    model.generation_config = generation.generation_config(model, tokenizer, max_new_tokens=options.max_new_tokens)
    if chat and reader.template.stop:
        model.generation_config.stop_strings = [reader.template.stop]
    return model


def _check_causal(model: Any, base: Path, packing: bool) -> None:
    """Raise BadModel if a token sees later tokens or, with `packing`, a text sees the text before it."""
    model.eval()
    first, second, third = (torch.arange(4)[None] + 3 * start for start in range(3))
    positions = torch.cat([torch.arange(4), torch.arange(4)])[None]
    with torch.inference_mode():
        alone = model(input_ids=second, use_cache=False).logits
        followed = model(input_ids=torch.cat([second, first], 1), use_cache=False).logits[:, :4]
        if not torch.allclose(alone, followed, atol=_TOLERANCE):
            raise BadModel(f"the model in {base} ({model.config.model_type}) is not causal: its tokens see later tokens")
        if packing:
            packed = [
                model(input_ids=torch.cat([text, second], 1), position_ids=positions, use_cache=False).logits[:, 4:]
                for text in (first, third)
            ]
            if not all(torch.allclose(alone, logits, atol=_TOLERANCE) for logits in packed):
                raise BadModel(
                    f"the model in {base} is a {model.config.model_type}, which does not separate packed texts; "
                    "set task_options.packing: false"
                )


class CausalLMCollator:
    """Pads a batch of encoded rows on the right.

    Padding may be the end token, which is also learnt, so labels and attention mask are explicit. Packed rows have no mask: transformers
    separates their texts where positions restart, only without mask and cache.
    """

    def __init__(self, pad: int, packed: bool) -> None:
        self._pad, self._packed = pad, packed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch as tensors."""
        ids = padded([row["input_ids"] for row in rows], self._pad)
        batch = {"input_ids": ids, "labels": padded([row["labels"] for row in rows], IGNORED), "use_cache": False}
        if self._packed:
            return batch | {"position_ids": padded([row["position_ids"] for row in rows], 0)}
        return batch | {"attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0)}


class CausalLMGenerator:
    """A trained language model."""

    def __init__(self, folder: Path, task: Task, spec: ModelSpec) -> None:
        """Load the model in `folder`; raise NotFound or BadModel."""
        self.spec = spec
        self._task = task
        self._tokenizer = task.load_tokenizer(folder)
        self._model = build(folder, self._tokenizer, task, spec).eval()
        self._reader = task.reader(self._tokenizer)

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Continue each row greedily; with expected answers, also compute their log-likelihoods.

        Raise BadData if a row is not a valid conversation.
        """
        room = self.spec.max_length - self._task.options.max_new_tokens
        prompts = [ids[-room:] for ids in self._task.prompts(rows, self._tokenizer)]
        answers = in_batches(prompts, batch_size, lambda ids: (len(ids), ids), self._write)
        return ModelOutput.texts(answers, self._measured(rows) if "label" in rows else None)

    def _write(self, prompts: list[list[int]]) -> list[str]:
        ids = padded(prompts, self._tokenizer.pad_token_id, "left")
        mask = padded([[1] * len(prompt) for prompt in prompts], 0, "left")
        with torch.inference_mode():
            generated = self._model.generate(input_ids=ids, attention_mask=mask, tokenizer=self._tokenizer)[:, ids.shape[1] :].tolist()
        stops = self._model.generation_config.eos_token_id
        # An end token need not be special.
        answers = [list(itertools.takewhile(lambda token: token not in stops, row)) for row in generated]
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [self._reader.template.answer(text) if self._task.options.data == "chat" else text.strip() for text in texts]

    def _measured(self, rows: pd.DataFrame) -> dict[str, Floats]:
        """Return log-likelihood (nats), tokens, most likely tokens and UTF-8 bytes of the expected answers."""
        sequences = enumerate(self._task.expected(rows, self._tokenizer))
        parts = [(index, part) for index, row in sequences for part in windows(row, self.spec.max_length)]
        likelihoods = in_batches([part for _, part in parts], _BATCH, lambda part: (len(part.ids), part.ids), self._likelihood)
        sums = np.zeros((len(rows), 3))
        np.add.at(sums, np.array([index for index, _ in parts], dtype=int), np.reshape(likelihoods, (-1, 3)))
        return self._task.measured(rows, sums)

    def _likelihood(self, parts: list[Ids]) -> list[Floats]:
        collate = CausalLMCollator(self._tokenizer.pad_token_id, packed=False)
        batch = collate([{"input_ids": part.ids, "labels": labels(part)} for part in parts])
        targets = batch.pop("labels")
        with torch.inference_mode():
            sums = generation.teacher_forced(self._model(**batch).logits[:, :-1], targets[:, 1:])
        return list(sums.double().numpy())
