"""Text classification: one text in, one of k labels out.

Reads a base model folder in hub layout (safetensors only, no code of its own) or a model folder that training wrote.
Torch and transformers are imported inside the functions: asking for `COLUMNS` must stay cheap.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.training import ModelSpec
from components.errors import BadData, BadModel, NotThere
from components.text import UnicodeForm, normalise

COLUMNS = ("text", "label")
METRICS = ("macro_f1", "accuracy")

_UNLIMITED = 1_000_000  # a tokenizer without a limit of its own says 1e30


def labels_of(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the labels of `rows`, sorted; a label's place is its number in the model."""
    return tuple(sorted(set(rows["label"])))


def load_tokenizer(base: Path) -> Any:
    """Load the tokenizer of a model folder, without network and without code of the model's own.

    Raises:
        BadModel: there is no tokenizer, it needs its own code, or it has no padding token.
    """
    from transformers import AutoTokenizer

    _refuse_foreign_code(base)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"the tokenizer in {base} cannot be loaded: {_first_line(error)}") from error
    if tokenizer.pad_token is None:
        raise BadModel(f"the tokenizer in {base} has no padding token, so texts cannot be batched; choose another base.model")
    return tokenizer


def longest_input(base: Path, tokenizer: Any) -> int:
    """Return the number of tokens that the model in `base` can read at most."""
    positions = _config(base).get("max_position_embeddings") or _UNLIMITED
    return int(min(tokenizer.model_max_length, positions, _UNLIMITED))


def encode(rows: pd.DataFrame, tokenizer: Any, labels: Sequence[str], max_length: int) -> pa.Table:
    """Return the model's inputs without padding, `labels` (a label's number) and `length` in tokens, one row a row.

    Raises:
        BadData: a row has a label that is not among `labels`.
    """
    number = {label: place for place, label in enumerate(labels)}
    if strange := sorted(set(rows["label"]) - set(number)):
        raise BadData(f"labels {', '.join(map(repr, strange))} are not in the label map ({', '.join(labels)})")
    inputs = tokenizer(list(rows["text"]), truncation=True, max_length=max_length, padding=False, return_attention_mask=False)
    columns = {name: pa.array(inputs[name], pa.list_(pa.int32())) for name in sorted(inputs.keys())}
    columns["labels"] = pa.array([number[label] for label in rows["label"]], pa.int64())
    columns["length"] = pa.array([len(ids) for ids in inputs["input_ids"]], pa.int32())
    return pa.table(columns)


def lengths(rows: pd.DataFrame, tokenizer: Any) -> npt.NDArray[np.int64]:
    """Return the length of each text in tokens, special tokens included, before truncation."""
    inputs = tokenizer(
        list(rows["text"]), truncation=False, padding=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return np.array([len(ids) for ids in inputs["input_ids"]], dtype=np.int64)


def build_model(base: Path, labels: Sequence[str]) -> Any:
    """Load the base model with a classification head for `labels`, in float32; the head is drawn from torch's global generator.

    Raises:
        BadModel: no safetensors weights, code of its own, or a folder that transformers cannot read.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    _refuse_foreign_code(base)
    _refuse_pickles(base)
    _quiet()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            label2id={label: place for place, label in enumerate(labels)},
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # a base that was fine-tuned before has a head of another size
            dtype=torch.float32,
        )
    except Exception as error:  # see load_tokenizer
        raise BadModel(f"the base model in {base} cannot be loaded for {len(labels)} labels: {_first_line(error)}") from error


def collator(tokenizer: Any) -> Any:
    """Return what pads a batch of encoded rows to its longest row."""
    from transformers import DataCollatorWithPadding

    return DataCollatorWithPadding(tokenizer)


def metrics(outputs: npt.NDArray[Any], expected: npt.NDArray[Any], labels: Sequence[str]) -> Mapping[str, float]:
    """Return macro-F1 and accuracy of logits (rows, labels); macro-F1 runs over all of `labels`, a class without rows counts 0.

    The list is fixed so that the same number means the same from one evaluation to the next.
    """
    from sklearn.metrics import f1_score

    predicted = np.asarray(outputs).argmax(axis=-1)
    macro = f1_score(expected, predicted, labels=list(range(len(labels))), average="macro", zero_division=0.0)
    return {"macro_f1": float(macro), "accuracy": float(np.mean(predicted == expected))}


def predictor(folder: Path) -> "TextClassifier":
    """Load a saved model folder."""
    return TextClassifier(folder)


class TextClassifier:
    """A trained model that answers raw texts; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        from transformers import AutoModelForSequenceClassification

        self.spec = ModelSpec.read(folder)
        _refuse_pickles(folder)
        _quiet()
        self._tokenizer = load_tokenizer(folder)
        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # see load_tokenizer
            raise BadModel(f"the model in {folder} cannot be loaded: {_first_line(error)}") from error
        self._model = model.float().eval()
        if self._model.config.num_labels != len(self.labels):
            raise BadModel(f"{folder}: the model has {self._model.config.num_labels} outputs, retune.json names {len(self.labels)} labels")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`."""
        return self.spec.labels

    def probabilities(self, texts: Sequence[str], batch_size: int = 64) -> npt.NDArray[np.float64]:
        """Return the probability of each label for each raw text, shape (texts, labels), at the temperature of retune.json.

        Texts are normalised as in training and batched by length, so that little is padding; neither the order nor the
        company of a text changes its answer by more than float32 rounding.
        """
        clean = [normalise(text, cast(UnicodeForm, self.spec.unicode_form)) for text in texts]
        answers = np.zeros((len(clean), len(self.labels)), dtype=np.float64)
        order = sorted(range(len(clean)), key=lambda place: (len(clean[place]), clean[place]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            answers[places] = self._answer([clean[place] for place in places])
        return answers

    def _answer(self, texts: list[str]) -> npt.NDArray[np.float64]:
        import torch

        inputs = self._tokenizer(texts, truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        return np.asarray(torch.softmax(logits.double() / self.spec.temperature, dim=-1).numpy())


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        if not folder.exists():
            raise NotThere(f"{folder} is missing; `retune run` fetches the base model into data/base") from None
        raise BadModel(f"{folder} has no config.json: expected a model in hub layout") from None
    except ValueError as error:
        raise BadModel(f"{folder / 'config.json'} is not JSON: {error}") from None


def _refuse_foreign_code(folder: Path) -> None:
    if "auto_map" in _config(folder):
        raise BadModel(f"{folder} brings code of its own (config.json: auto_map), which Retune does not run; choose another base.model")


def _refuse_pickles(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    found = f"only pickled weights ({', '.join(pickles)}), which can run code when loaded" if pickles else "no weights"
    raise BadModel(f"{folder}: expected safetensors weights, found {found}")


def _quiet() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()  # a fresh head is what we asked for, not a warning
    logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
