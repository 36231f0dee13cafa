"""A pretrained model of any family with a head of our own: pooling over tokens, dropout, a hidden layer.

It is saved as the pretrained model is, with the head beside it and in its config (`retune_head`): any task can start from the folder, and
nothing of it is code. This module imports torch; the task imports it where a head is asked for.
"""

import inspect
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_MAPPING,
)

from components.core.errors import BadModel, BadParams, first_line
from components.model.support import pretrained
from components.model.support.foreign_code import refuse_foreign_code
from components.model.support.output_heads import take_rows
from components.model.support.weight_check import stored
from components.model.tasks.text_classification.options import Options

log = logging.getLogger(__name__)

_SUMMARISED = ("xlnet", "xlm", "flaubert")
_POOLINGS = {"cls": "cls", "bos": "cls", "first": "cls", "mean": "mean", "late": "mean", "last": "last"}

_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout", "resid_pdrop")


class ClassificationHead(torch.nn.Module):
    """Dropout, a hidden layer with GELU and dropout where there is one, and a linear layer; from (batch, width) to (batch, outputs)."""

    def __init__(self, width: int, hidden: int, dropout: float, outputs: int, deviation: float) -> None:
        """Draw weights of standard deviation `deviation` from torch's global generator; no hidden layer where `hidden` is 0."""
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        self.dense = torch.nn.Linear(width, hidden) if hidden else None
        self.out = torch.nn.Linear(hidden or width, outputs)
        for layer in (self.dense, self.out):
            if layer is not None:
                torch.nn.init.normal_(layer.weight, std=deviation)
                torch.nn.init.zeros_(layer.bias)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        if self.dense is not None:
            pooled = torch.nn.functional.gelu(self.dense(self.dropout(pooled)))
        logits: torch.Tensor = self.out(self.dropout(pooled))
        return logits


class HeadedModel(PreTrainedModel):
    """A pretrained model and a `ClassificationHead`, as its config's `retune_head` describes it: pooling, hidden and dropout."""

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, body: PreTrainedModel) -> None:
        """Put a fresh head on `body`."""
        super().__init__(body.config)
        config: Any = body.config
        self.base_model_prefix = body.base_model_prefix
        setattr(self, self.base_model_prefix, body)
        head = config.retune_head
        self._pooling = str(head["pooling"])
        deviation = float(getattr(config, "initializer_range", 0.02))
        self.head = ClassificationHead(int(config.hidden_size), head["hidden"], head["dropout"], int(config.num_labels), deviation)

    def forward(self, labels: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        """Return the logits (batch, outputs), and where there are labels the loss for the config's problem_type."""
        tokens = self.base_model(**inputs).last_hidden_state
        logits = self.head(pooled(tokens, inputs["attention_mask"], self._pooling))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def pooled(tokens: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Return one vector a row, of the `tokens` (batch, length, width) that `mask` (batch, length) keeps on either side."""
    kept, rows = mask.bool(), torch.arange(len(tokens), device=tokens.device)
    match how:
        case "mean":
            weight = kept.unsqueeze(-1).to(tokens.dtype)
            return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        case "max":
            return tokens.masked_fill(~kept.unsqueeze(-1), torch.finfo(tokens.dtype).min).amax(dim=1)
        case "last":
            return tokens[rows, kept.shape[1] - 1 - kept.flip(1).int().argmax(dim=1)]
        case _:
            return tokens[rows, kept.int().argmax(dim=1)]


def token_vectors(model: Any, inputs: Mapping[str, Any], wanted: str) -> torch.Tensor:
    """Return a vector (batch, width) for each row of `inputs`, pooled as the head of `model`, or of what LoRA wraps, does.

    Where the architecture has a head of its own, that is what goes into it: its first token, its last, or their mean, as the config says.
    """
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    found: list[Any] = []
    hook = plain.base_model.register_forward_hook(lambda *called: found.append(called[-1]))
    try:
        model(**inputs)
    finally:
        hook.remove()
    how = "last" if plain.config.is_encoder_decoder else _pooling(plain.config, wanted)
    return pooled(found[-1][0], inputs["attention_mask"], how)


def built(base: Path, options: Options, outputs: dict[str, Any], *, ordered: bool = False) -> HeadedModel:
    """Load the model in `base` and put the head of `options` on it: a fresh one, or that of `base` where it has the same.

    Of the output layer of `base` the rows are taken that it has for the labels of `outputs`; for `ordered` see `take_rows`.

    Raises:
        BadModel: the folder must not or cannot be loaded.
        BadParams: the head does not fit the architecture.
    """
    body = pretrained.load_model("AutoModel", base, **outputs, **_bare(type(AutoConfig.from_pretrained(base, local_files_only=True))))
    config = body.config
    head = {"pooling": _pooling(config, options.pooling), "hidden": options.head_hidden, "dropout": _dropout(config, options.head_dropout)}
    known = getattr(config, "retune_head", None)
    config.retune_head = head
    model = HeadedModel(body)
    if known and {**known, "dropout": 0} == {**head, "dropout": 0}:
        _take_hidden(model, base)
        take_rows(model, base, list(outputs["id2label"].values()), HeadedModel.__name__, ordered=ordered)
    else:
        log.info("head: all %d rows are drawn at random: the base has no head for this task", config.num_labels)
    return model


def restored(folder: Path) -> HeadedModel:
    """Load a folder that a HeadedModel was saved in.

    Raises:
        BadModel: the folder must not or cannot be loaded.
    """
    refuse_foreign_code(folder)
    pretrained.refuse_pickles(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32)
        model = HeadedModel(AutoModel.from_config(config, **_bare(type(config))))
        safetensors.torch.load_model(model, folder / "model.safetensors")
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"the model in {folder} cannot be loaded: {first_line(error)}") from error
    return model


def _take_hidden(model: HeadedModel, base: Path) -> None:
    """Take the hidden layer of the head in `base`, which has one of the same width."""
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.dense.")}
    found = stored(base, own)
    if {name: tensor.shape for name, tensor in found.items()} == {name: tensor.shape for name, tensor in own.items()}:
        model.load_state_dict(found, strict=False)


def _bare(config: type[PreTrainedConfig]) -> dict[str, Any]:
    """Return the settings that leave out a pooler, which nothing would read."""
    known: Any = MODEL_MAPPING.get(config, None)
    return {"add_pooling_layer": False} if known and "add_pooling_layer" in inspect.signature(known).parameters else {}


def _pooling(config: PreTrainedConfig, wanted: str) -> str:
    """Return how the tokens are pooled.

    Raises:
        BadParams: the architecture has no token that has read all others.
    """
    kind = config.model_type
    if config.is_encoder_decoder:
        raise BadParams(f"params.yaml: task_options: pooling, head_hidden and head_dropout need an encoder or a decoder; {kind} is both")
    if wanted == "default" and (own := _own_pooling(config)) is not None:
        return own
    if kind == "xlnet":  # its [CLS] stands at the end
        return "last" if wanted in ("default", "cls") else wanted
    causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if causal and wanted == "cls":
        raise BadParams(
            f"params.yaml: task_options.pooling is cls, but the first token of {kind} reads no other; write default, mean or max"
        )
    return ("last" if causal else "cls") if wanted == "default" else wanted


def _own_pooling(config: PreTrainedConfig) -> str | None:
    """Return the pooling of the architecture's own head where the config chooses it; None where the architecture has one only."""
    chosen = getattr(config, "classifier_pooling", None)  # ModernBERT, EuroBERT: cls, bos | mean, late
    if chosen is None and config.model_type in _SUMMARISED:
        chosen = getattr(config, "summary_type", None)
    return _POOLINGS.get(str(chosen))


def _dropout(config: PreTrainedConfig, wanted: float | None) -> float:
    """Return the dropout of the head: what is asked for, or what the architecture has for its own."""
    known = [getattr(config, name, None) for name in _DROPOUTS]
    return wanted if wanted is not None else next((float(value) for value in known if isinstance(value, float)), 0.0)
