"""The predictor of token classification, and the loading of its models."""

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
from components.model.tasks.token_classification.schemes import join_tags


class Tagger:
    """A trained token classifier."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotFound: the folder or its retune.json is missing.
            BadModel: the model cannot be loaded.
        """
        self.spec = ModelSpec.read(folder)
        options = Options.parse(self.spec.options, "task_options")
        self._rows = Rows(options.data, options.scheme)
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model(folder, self.spec, options).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Predict tags or spans of `rows`, batched by length to reduce padding."""
        records = self._rows.records(rows)
        sentences, gaps = [self._rows.tokens(row) for row in records], [self._rows.gaps(row) for row in records]
        parts = parts_of(sentences, self._tokenizer, self.spec.max_length, gaps)
        order = sorted(range(len(parts)), key=lambda index: parts[index].length)
        tags: list[list[str]] = [[] for _ in parts]
        for start in range(0, len(order), batch_size):
            indexes = order[start : start + batch_size]
            for index, tag_indexes in zip(indexes, self._answer([parts[index] for index in indexes]), strict=True):
                tags[index] = [self.spec.labels[number] for number in tag_indexes]
        row_tags: list[list[str]] = [[] for _ in records]
        for part, part_tags in zip(parts, tags, strict=True):
            row_tags[part.row] = join_tags(row_tags[part.row], part_tags, self._rows.scheme)
        return ModelOutput.texts([self._rows.answer(row, part_tags) for row, part_tags in zip(records, row_tags, strict=True)])

    def _answer(self, parts: list[WordPiece]) -> list[npt.NDArray[np.int64]]:
        """Return the tag indexes of the tokens in each part."""
        import torch
        from transformers import DataCollatorForTokenClassification

        collate = DataCollatorForTokenClassification(self._tokenizer)
        batch = dict(collate([{**part.inputs, "labels": part.labels([0] * len(part.begins))} for part in parts]))
        begins = batch.pop("labels") != IGNORED
        with torch.inference_mode():
            tags = tags_of(self._model, batch, begins)
        return [row[mask].numpy() for row, mask in zip(tags, begins, strict=True)]


def tags_of(model: Any, batch: Mapping[str, Any], begins: Any) -> Any:
    """Return tag indexes (batch, positions), valid where a token `begins`."""
    if hasattr(model, "crf"):
        return model(**batch, begins=begins).tags
    return model(**batch).logits.argmax(dim=-1)


def load_model(folder: Path, spec: ModelSpec, options: Options) -> Any:
    """Load a trained model with the head of the options.

    Raises:
        BadModel: the folder has no safetensors weights, has custom code, or cannot be read by transformers.
    """
    return pretrained.load_model(_model_class(options), folder, head=False, **_label_settings(spec, options))


def start_from(folder: Path, spec: ModelSpec, options: Options) -> Any:
    """Load a base model with the head of the options; reuse the head weights of labels that the base knows.

    Raises:
        BadModel: the folder has no safetensors weights, has custom code, or cannot be read by transformers.
    """
    # A fine-tuned base may have a head of another size.
    model = pretrained.load_model(_model_class(options), folder, ignore_mismatched_sizes=True, **_label_settings(spec, options))
    rows = take_rows(model, folder, spec.labels, "ForTokenClassification")
    if options.head == "crf":
        _copy_crf(model, folder, rows)
    return model


def _model_class(options: Options) -> str | type:
    if options.head == "crf":
        from components.model.tasks.token_classification.crf import AutoModelForTokenClassificationWithCrf

        return AutoModelForTokenClassificationWithCrf
    return "AutoModelForTokenClassification"


def _label_settings(spec: ModelSpec, options: Options) -> dict[str, Any]:
    """Return the settings that name the outputs."""
    if options.head == "crf":
        return {"labels": spec.labels, "scheme": options.scheme, "rate": options.transition_rate}
    names = dict(enumerate(spec.labels))
    return {"num_labels": len(names), "id2label": names, "label2id": {label: index for index, label in names.items()}}


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
