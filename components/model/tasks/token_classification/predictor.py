"""Models for token classification: loaded from a folder, and asked raw rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model.support import pretrained
from components.model.support.output_heads import take_rows
from components.model.support.weight_check import stored
from components.model.tasks.token_classification.encoding import IGNORED, WordPiece, load_tokenizer, parts_of
from components.model.tasks.token_classification.options import Options
from components.model.tasks.token_classification.rows import Rows
from components.model.tasks.token_classification.schemes import joined


class Tagger:
    """A trained model that answers raw rows; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        self.spec = ModelSpec.read(folder)
        options = Options.parse(self.spec.options, "task_options")
        self._rows = Rows(options.data, options.scheme)
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder, self.spec, options).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer the tokens, or the text, of each row with its tags, or its spans.

        Sentences are batched by length, so that little is padding.
        """
        records = self._rows.records(rows)
        sentences, gaps = [self._rows.tokens(row) for row in records], [self._rows.gaps(row) for row in records]
        parts = parts_of(sentences, self._tokenizer, self.spec.max_length, gaps)
        order = sorted(range(len(parts)), key=lambda place: parts[place].length)
        tags: list[list[str]] = [[] for _ in parts]
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, numbers in zip(places, self._answer([parts[place] for place in places]), strict=True):
                tags[place] = [self.spec.labels[number] for number in numbers]
        whole: list[list[str]] = [[] for _ in records]
        for part, found in zip(parts, tags, strict=True):
            whole[part.row] = joined(whole[part.row], found, self._rows.scheme)
        return ModelOutput.texts([self._rows.answer(row, found) for row, found in zip(records, whole, strict=True)])

    def _answer(self, parts: list[WordPiece]) -> list[npt.NDArray[np.int64]]:
        """Return the numbers of the tags of each part's tokens."""
        import torch
        from transformers import DataCollatorForTokenClassification

        collate = DataCollatorForTokenClassification(self._tokenizer)
        batch = dict(collate([{**part.inputs, "labels": part.labels([0] * len(part.begins))} for part in parts]))
        begins = batch.pop("labels") != IGNORED
        with torch.inference_mode():
            found = tags_of(self._model, batch, begins)
        return [row[mask].numpy() for row, mask in zip(found, begins, strict=True)]


def tags_of(model: Any, batch: Mapping[str, Any], begins: Any) -> Any:
    """Return the number of the tag at each position (batch, positions), to be read where a token `begins`."""
    if hasattr(model, "crf"):
        return model(**batch, begins=begins).tags
    return model(**batch).logits.argmax(dim=-1)


def load_model(folder: Path, spec: ModelSpec, options: Options) -> Any:
    """Load a trained model with the head that the options ask for.

    Raises:
        BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
    """
    return pretrained.load_model(*_as_asked(folder, options), head=False, **_named(spec, options))


def start_from(folder: Path, spec: ModelSpec, options: Options) -> Any:
    """Load a base model with the head that the options ask for, over the labels of `spec`; what its own head has for them is taken.

    Raises:
        BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
    """
    # A base that was fine-tuned before has a head of another size.
    model = pretrained.load_model(*_as_asked(folder, options), ignore_mismatched_sizes=True, **_named(spec, options))
    rows = take_rows(model, folder, spec.labels, "ForTokenClassification")
    if options.head == "crf":
        _take_field(model, folder, rows)
    return model


def _as_asked(folder: Path, options: Options) -> tuple[str | type, Path]:
    if options.head == "crf":
        from components.model.tasks.token_classification.crf import AutoModelForTokenClassificationWithCrf

        return AutoModelForTokenClassificationWithCrf, folder
    return "AutoModelForTokenClassification", folder


def _named(spec: ModelSpec, options: Options) -> dict[str, Any]:
    """Return the settings that name the outputs."""
    if options.head == "crf":
        return {"labels": spec.labels, "scheme": options.scheme, "rate": options.transition_rate}
    numbers = dict(enumerate(spec.labels))
    return {"num_labels": len(numbers), "id2label": numbers, "label2id": {label: number for number, label in numbers.items()}}


def _take_field(model: Any, folder: Path, rows: Mapping[int, int]) -> None:
    """Put the weights that the field in `folder` has for tags, and for one after the other, where these tags are now; others are 0."""
    import torch

    found = stored(folder, [f"crf.{name}" for name, _ in model.crf.named_parameters()])
    faster = pretrained.config(folder).get("crf_rate", 1.0) / model.config.crf_rate
    mine, theirs = list(rows.keys()), list(rows.values())
    with torch.no_grad():
        for name, weights in model.crf.named_parameters():
            if (tensor := found.get(f"crf.{name}")) is not None:
                weights.zero_()
                places, rows_of = (torch.meshgrid(*[torch.tensor(each)] * weights.ndim, indexing="ij") for each in (mine, theirs))
                weights[places] = tensor[rows_of].to(weights) * faster
