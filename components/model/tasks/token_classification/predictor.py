"""The predictor of token classification, and the loading of its models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.support import pretrained
from components.model.support.batches import in_batches
from components.model.support.output_heads import take_rows
from components.model.support.weight_check import stored
from components.model.tasks.token_classification.encoding import IGNORED, WordPiece, parts_of
from components.model.tasks.token_classification.schemes import join_tags


class Tagger:
    """A trained token classifier."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`; raise NotFound or BadModel."""
        self.spec = ModelSpec.read(folder)
        task: Any = tasks.of(self.spec)
        self._rows = task.rows
        self._tokenizer = task.load_tokenizer(folder)
        self._model = pretrained.load_model(
            _model_class(task.options), folder, head=False, **_label_settings(self.spec, task.options)
        ).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Predict tags or spans of `rows`, batched by length to reduce padding."""
        records = self._rows.records(rows)
        sentences, gaps = [self._rows.tokens(row) for row in records], [self._rows.gaps(row) for row in records]
        parts = parts_of(sentences, self._tokenizer, self.spec.max_length, gaps)
        tags = in_batches(parts, batch_size, lambda part: part.length, self._answer)
        row_tags: list[list[str]] = [[] for _ in records]
        for part, indexes in zip(parts, tags, strict=True):
            part_tags = [self.spec.labels[index] for index in indexes]
            row_tags[part.row] = join_tags(row_tags[part.row], part_tags, self._rows.scheme)
        return ModelOutput.texts([self._rows.answer(row, part_tags) for row, part_tags in zip(records, row_tags, strict=True)])

    def _answer(self, parts: list[WordPiece]) -> list[list[int]]:
        """Return the tag indexes of the tokens in each part."""
        import torch
        from transformers import DataCollatorForTokenClassification

        collate = DataCollatorForTokenClassification(self._tokenizer)
        batch = dict(collate([{**part.inputs, "labels": part.labels([0] * len(part.begins))} for part in parts]))
        begins = batch.pop("labels") != IGNORED
        with torch.inference_mode():
            output = self._model(**batch, begins=begins) if hasattr(self._model, "crf") else self._model(**batch)
        tags = output.tags if hasattr(self._model, "crf") else output.logits.argmax(dim=-1)
        return [row[mask].tolist() for row, mask in zip(tags, begins, strict=True)]


def start_from(folder: Path, spec: ModelSpec, options: Any) -> Any:
    """Load a base model with the head of the options; reuse the head weights of labels that the base knows."""
    # A fine-tuned base may have a head of another size.
    model = pretrained.load_model(_model_class(options), folder, ignore_mismatched_sizes=True, **_label_settings(spec, options))
    rows = take_rows(model, folder, spec.labels, "ForTokenClassification")
    if options.head == "crf":
        _copy_crf(model, folder, rows)
    return model


def _model_class(options: Any) -> str | type:
    if options.head == "crf":
        from components.model.tasks.token_classification.crf import AutoModelForTokenClassificationWithCrf

        return AutoModelForTokenClassificationWithCrf
    return "AutoModelForTokenClassification"


def _label_settings(spec: ModelSpec, options: Any) -> dict[str, Any]:
    """Return the settings that name the outputs."""
    if options.head == "crf":
        return {"labels": spec.labels, "scheme": options.scheme, "rate": options.transition_rate}
    return pretrained.label_settings(spec.labels)


def _copy_crf(model: Any, folder: Path, rows: Mapping[int, int]) -> None:
    """Copy the CRF weights of known tags from `folder`, with `rows` from new to old index; all others become 0."""
    import torch

    base_weights = stored(folder, [f"crf.{name}" for name, _ in model.crf.named_parameters()])
    scale = pretrained.config(folder).get("crf_rate", 1.0) / model.config.crf_rate
    new, old = list(rows.keys()), list(rows.values())
    with torch.no_grad():
        for name, weights in model.crf.named_parameters():
            if (tensor := base_weights.get(f"crf.{name}")) is not None:
                weights.zero_()
                targets, sources = (torch.meshgrid(*[torch.tensor(indexes)] * weights.ndim, indexing="ij") for indexes in (new, old))
                weights[targets] = tensor[sources].to(weights) * scale
