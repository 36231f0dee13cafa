"""A pretrained model of any family with a custom classification head: pooling, dropout, and an optional hidden layer.

The folder contains the pretrained model and the head, described in its config (`retune_head`), without custom code: any task can start from
it. This module imports torch; the task imports it on demand.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.loss.loss_utils import ForSequenceClassificationLoss
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_MAPPING

from components.core.errors import BadModel, BadParams, first_line
from components.model.support import pretrained
from components.model.support.batches import pooled
from components.model.support.foreign_code import refuse_foreign_code
from components.model.support.output_heads import take_rows
from components.model.support.weight_check import stored
from components.model.tasks.text_classification import Options

log = logging.getLogger(__name__)

_LAYERS = "last_four"
_SUMMARISED = ("xlnet", "xlm", "flaubert")
_POOLINGS = {"cls": "cls", "bos": "cls", "first": "cls", "mean": "mean", "late": "mean", "last": "last"}

_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "hidden_dropout_prob", "dropout", "resid_pdrop")


class ClassificationHead(torch.nn.Module):
    """Dropout, an optional hidden layer with GELU and dropout, and a linear layer; (batch, width) to (batch, outputs)."""

    def __init__(self, width: int, hidden: int, dropout: float, outputs: int, deviation: float) -> None:
        """Draw weights with standard deviation `deviation` from torch's global generator; `hidden` 0 means no hidden layer."""
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
    """A pretrained model with a `ClassificationHead`, configured by `retune_head` in its config."""

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def __init__(self, body: PreTrainedModel) -> None:
        super().__init__(body.config)
        config: Any = body.config
        self.base_model_prefix = body.base_model_prefix
        setattr(self, self.base_model_prefix, body)
        head = config.retune_head
        self._pooling = str(head["pooling"])
        deviation = float(getattr(config, "initializer_range", 0.02))
        self.head = ClassificationHead(int(config.hidden_size), head["hidden"], head["dropout"], int(config.num_labels), deviation)

    @property
    def other_poolings(self) -> tuple[str, ...]:
        """The poolings besides its own whose vectors `pooled_inputs` returns from one pass; none with a hidden layer in the head."""
        return () if self.head.dense is not None else tuple(how for how in ("mean", _LAYERS) if how != self._pooling)

    def pooled_inputs(self, inputs: Mapping[str, Any], poolings: Sequence[str]) -> list[torch.Tensor | None]:
        """Return the inputs (batch, width) of the output layer with its own pooling, then those with each of `poolings`.

        None for a pooling that the base model does not support: the hidden layers of some have different lengths (CANINE, Funnel).
        """
        output, mask = self.base_model(**inputs, output_hidden_states=True), inputs["attention_mask"]
        own = _pooled(output, mask, self._pooling)
        return [own, *(None if how == _LAYERS and not _alike(output) else _pooled(output, mask, how) for how in poolings)]

    def forward(self, labels: torch.Tensor | None = None, **inputs: Any) -> SequenceClassifierOutput:
        """Return the logits (batch, outputs), and with labels the loss for the config's problem_type."""
        layers = {"output_hidden_states": True} if self._pooling == _LAYERS else {}
        logits = self.head(_pooled(self.base_model(**inputs, **layers), inputs["attention_mask"], self._pooling))
        loss = None if labels is None else ForSequenceClassificationLoss(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def token_vectors(model: Any, inputs: Mapping[str, Any], requested: str) -> Any:
    """Return vectors (batch, width) for `inputs`, pooled like the input of the head of `model` (unwrapped from LoRA)."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    outputs: list[Any] = []
    hook = plain.base_model.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
    try:
        model(**inputs)
    finally:
        hook.remove()
    how = "last" if plain.config.is_encoder_decoder else _pooling(plain.config, requested)
    return _pooled(outputs[-1], inputs["attention_mask"], how)


def _pooled(output: Any, mask: Any, how: str) -> Any:
    """Return vectors (batch, width) of the `output` of a pretrained model; last_four needs its `hidden_states`."""
    if how != _LAYERS:
        return pooled(output[0], mask, how)
    if not _alike(output):
        raise BadModel("the hidden layers of the base model have different lengths; set task_options.pooling to mean, cls or default")
    layers = output.hidden_states[1:][-4:]  # the first are the embeddings
    return pooled(torch.stack(layers).mean(dim=0), mask, "mean")


def _alike(output: Any) -> bool:
    """Return whether the last four hidden states of a pretrained model have the shape of its output."""
    return all(layer.shape == output[0].shape for layer in output.hidden_states[1:][-4:])


def build(base: Path, options: Options, outputs: dict[str, Any], *, ordered: bool = False) -> HeadedModel:
    """Load the model in `base` with the head of `options`; reuse the head of `base` if it has the same shape.

    Output rows of labels that `base` knows are reused; for `ordered` see `take_rows`. Raise BadModel or BadParams, see `Task.build_model`.
    """
    body = pretrained.load_model("AutoModel", base, **outputs, **_bare(type(AutoConfig.from_pretrained(base, local_files_only=True))))
    config = body.config
    head = {"pooling": _pooling(config, options.pooling), "hidden": options.head_hidden, "dropout": _dropout(config, options.head_dropout)}
    base_head = getattr(config, "retune_head", None)
    config.retune_head = head
    model = HeadedModel(body)
    if base_head and {**base_head, "dropout": 0} == {**head, "dropout": 0}:
        _take_hidden(model, base)
        take_rows(model, base, list(outputs["id2label"].values()), HeadedModel.__name__, ordered=ordered)
    else:
        log.info("head: all %d rows are initialised randomly: the base has no such head", config.num_labels)
    return model


def restore(folder: Path) -> HeadedModel:
    """Load a saved HeadedModel; raise BadModel if that fails."""
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
    """Copy the hidden layer of the head in `base`."""
    hidden_weights = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.dense.")}
    weights = stored(base, hidden_weights)
    if {name: tensor.shape for name, tensor in weights.items()} == {name: tensor.shape for name, tensor in hidden_weights.items()}:
        model.load_state_dict(weights, strict=False)


def _bare(config: type[PreTrainedConfig]) -> dict[str, Any]:
    """Return the settings that leave out the unused pooler."""
    architecture: Any = MODEL_MAPPING.get(config, None)
    return {"add_pooling_layer": False} if architecture and "add_pooling_layer" in inspect.signature(architecture).parameters else {}


def _pooling(config: PreTrainedConfig, requested: str) -> str:
    """Return the pooling for `requested`, resolving "default" by architecture.

    Raise BadParams if the architecture does not support the pooling.
    """
    architecture = config.model_type
    if config.is_encoder_decoder:
        raise BadParams(
            f"params.yaml: task_options: pooling, head_hidden and head_dropout do not support the encoder-decoder {architecture}"
        )
    if requested == "default" and (own := _own_pooling(config)) is not None:
        return own
    if architecture == "xlnet":  # its [CLS] is at the end
        return "last" if requested in ("default", "cls") else requested
    causal = architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and architecture not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if causal and requested == "cls":
        raise BadParams(
            f"params.yaml: task_options.pooling is cls, but the first token of {architecture} sees no other token; set default, mean or max"
        )
    return ("last" if causal else "cls") if requested == "default" else requested


def _own_pooling(config: PreTrainedConfig) -> str | None:
    """Return the pooling that the config selects for the architecture's own head; None if it selects none."""
    pooling = getattr(config, "classifier_pooling", None)  # ModernBERT, EuroBERT: cls, bos | mean, late
    if pooling is None and config.model_type in _SUMMARISED:
        pooling = getattr(config, "summary_type", None)
    return _POOLINGS.get(str(pooling))


def _dropout(config: PreTrainedConfig, requested: float | None) -> float:
    """Return the dropout of the head: `requested`, or else that of the architecture."""
    configured = [getattr(config, name, None) for name in _DROPOUTS]
    return requested if requested is not None else next((float(value) for value in configured if isinstance(value, float)), 0.0)
