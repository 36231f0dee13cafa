"""An encoder of texts as unit vectors with a contrastive loss, saved in sentence-transformers format."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

from components.core.errors import BadModel
from components.model.support import pretrained, sentence_config
from components.model.support.batches import padded, pooled
from components.model.support.weight_check import stored

log = logging.getLogger(__name__)


class Dense(torch.nn.Module):
    """A linear layer and an activation after the pooling, as in sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        """Load the layer from `folder`; raise BadModel if it is incomplete, or uses unsupported settings."""
        super().__init__()
        self.settings = pretrained.settings(folder / "config.json")
        activation = str(self.settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
        activation_class = getattr(torch.nn, activation.rpartition(".")[2], None)
        if (
            not activation.startswith("torch.nn.")
            or not isinstance(activation_class, type)
            or not issubclass(activation_class, torch.nn.Module)
        ):
            raise BadModel(f"{folder} has the activation {activation}, expected one of torch.nn")
        if self.settings.get("use_residual") or self.settings.get("module_input_name", _SENTENCE) != _SENTENCE:
            raise BadModel(f"{folder} uses a residual or another input than the pooled vector, which contrastive does not support")
        weights = stored(folder, ["linear.weight", "linear.bias"])
        if "linear.weight" not in weights or ("linear.bias" in weights) != self.settings.get("bias", True):
            raise BadModel(f"{folder} has no model.safetensors with linear.weight and linear.bias; save the model as safetensors")
        out, into = weights["linear.weight"].shape
        self.linear = torch.nn.utils.skip_init(torch.nn.Linear, into, out, bias="linear.bias" in weights)
        self.linear.load_state_dict({name.removeprefix("linear."): tensor.float() for name, tensor in weights.items()})
        self.activation = activation_class()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (texts, out) of (texts, in)."""
        output: torch.Tensor = self.activation(self.linear(vectors))
        return output

    def save(self, folder: Path) -> None:
        """Write the layer to `folder`."""
        folder.mkdir(exist_ok=True)
        _write(self.settings, folder / "config.json")
        weights = {f"linear.{name}": tensor.detach().cpu().contiguous() for name, tensor in self.linear.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


class Normalize(torch.nn.Module):
    """Scales vectors to unit length."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return unit vectors."""
        return torch.nn.functional.normalize(vectors, dim=-1)

    def save(self, folder: Path) -> None:
        """Write an empty config."""
        folder.mkdir(exist_ok=True)
        _write({}, folder / "config.json")


_SENTENCE = "sentence_embedding"
_AFTER: Mapping[str, Callable[[Path], torch.nn.Module]] = {"Dense": Dense, "Normalize": lambda _: Normalize()}


class Embedder(torch.nn.Module):
    """A pretrained encoder with pooling, further sentence-transformers modules, and normalisation."""

    base_model_prefix = "encoder"

    def __init__(self, folder: Path, *, data: str, pooling: str, temperature: float, max_length: int) -> None:
        """Load the encoder in `folder` without its pooler; raise BadModel if that fails.

        `pooling` is a pooling name, or `folder`: that of a sentence-transformers folder, and mean for other folders.
        """
        super().__init__()
        self.described = sentence_config.read_sentence_config(folder)
        self.encoder = pretrained.load_model(_encoder_of(folder), folder, head=False)
        if getattr(self.encoder, "pooler", None) is not None:
            self.encoder.pooler = None
        self._pooling = (self.described.pooling or ("mean",)) if pooling == "folder" else (pooling,)
        if self.described.pooling not in ((), self._pooling):
            base_pooling = " and ".join(self.described.pooling)
            log.info("using pooling %s from task_options.pooling instead of %s of the base", pooling, base_pooling)
        if self.described.prompts:
            log.info("the prompts %s of the base are not used, only its default prompt", ", ".join(self.described.prompts))
        self.after = torch.nn.ModuleList(_AFTER[kind](path) for kind, path in self.described.after)
        width = self.config.hidden_size * len(self._pooling)
        for part in self.after:
            if isinstance(part, Dense):
                if part.linear.in_features != width:
                    raise BadModel(f"{folder}: a Dense module reads {part.linear.in_features} values, but its input has {width}")
                width = part.linear.out_features
        self.data, self._temperature, self._max_length = data, temperature, max_length

    @property
    def config(self) -> Any:
        """The config of the encoder."""
        return self.encoder.config

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the token embeddings."""
        embeddings: torch.nn.Module = self.encoder.get_input_embeddings()
        return embeddings

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return unit vectors (texts, width) in float32 for tokens (texts, longest)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0].float()
        vectors = torch.cat([pooled(hidden, attention_mask, how) for how in self._pooling], dim=-1)
        for part in self.after:
            vectors = part(vectors)
        return torch.nn.functional.normalize(vectors, dim=-1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: Any = None) -> SequenceClassifierOutput:
        """Embed the texts of each row, (rows, texts, longest); `logits` are the concatenated vectors, (rows, texts x width).

        `labels` are the keys for `in_batch`, or scores (rows, 1). A single text is embedded twice with dropout in training, and as
        two halves in evaluation.
        """
        if self.data == "texts":
            columns = [0, 0] if self.training else [1, 2]
            input_ids, attention_mask = input_ids[:, columns], attention_mask[:, columns]
        rows, texts, _ = input_ids.shape
        vectors = self.embed(input_ids.flatten(0, 1), attention_mask.flatten(0, 1)).view(rows, texts, -1)
        loss = None
        if labels is not None:
            anchors, *others = vectors.unbind(dim=1)
            if self.data == "scored":
                loss = by_score(anchors, others[0], labels[:, 0], self._temperature)
            else:
                loss = in_batch(anchors, others, labels, self._temperature)
        return SequenceClassifierOutput(loss=loss, logits=vectors.flatten(1))

    def save_pretrained(self, folder: Path) -> None:
        """Write the encoder and the sentence-transformers files to `folder`."""
        self.encoder.save_pretrained(folder)
        after: list[Any] = list(self.after)
        if not after or not isinstance(after[-1], Normalize):
            after.append(Normalize())
        kinds = ["Transformer", "Pooling", *(type(part).__name__ for part in after)]
        paths = ["", *(f"{number}_{name}" for number, name in enumerate(kinds) if number)]
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(zip(paths, kinds, strict=True))
        ]
        _write(modules, folder / sentence_config.LIST)
        _write({"max_seq_length": self._max_length, "do_lower_case": self.described.lower}, folder / sentence_config.TRANSFORMER)
        if prompt := self.described.prompt:
            _write({"prompts": {"default": prompt}, "default_prompt_name": "default"}, folder / sentence_config.SENTENCES)
        (folder / paths[1]).mkdir(exist_ok=True)
        shown = ("cls", "mean", *(name for name in self._pooling if name not in ("cls", "mean")))
        modes = {sentence_config.POOLINGS[name]: name in self._pooling for name in shown}
        _write({"word_embedding_dimension": self.config.hidden_size, **modes}, folder / paths[1] / "config.json")
        for path, part in zip(paths[2:], after, strict=True):
            part.save(folder / path)


def in_batch(anchors: torch.Tensor, others: Sequence[torch.Tensor], keys: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean cross-entropy of each anchor's positive among the texts of the batch, by cosine / `temperature`.

    `others` are the positives and, if any, the negatives. `keys` (rows, 3 or 4) identify group, anchor, positive and negative of
    each row. Van den Oord et al., "Representation Learning with Contrastive Predictive Coding" (2018), equation 4; with
    the same text twice Gao et al., "SimCSE" (2021), equation 1.
    """
    similarity = anchors @ torch.cat(list(others)).T / temperature
    similarity = similarity.masked_fill(false_negatives(keys), -torch.inf)
    return torch.nn.functional.cross_entropy(similarity, torch.arange(len(anchors), device=anchors.device))


def false_negatives(keys: torch.Tensor) -> torch.Tensor:
    """Return a mask of the texts that are not negatives of a row, (rows, positives and negatives).

    These are the anchors and positives of rows with the same group or anchor, except the row's positive and negative.
    """
    group, anchor, positive = keys[:, 0], keys[:, 1], keys[:, 2]
    related = (group[:, None] == group) | (anchor[:, None] == anchor)
    texts = keys[:, 2:].T.reshape(-1)
    equal = (anchor[:, None] == texts) | (positive[:, None] == texts)
    own_texts = torch.eye(len(keys), dtype=torch.bool, device=keys.device).repeat(1, keys.shape[1] - 2)
    return (related.float() @ equal.float() > 0) & ~own_texts


def by_score(a: torch.Tensor, b: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return log(1 + Σ exp((cos_i − cos_j) / `temperature`)) over the pairs of rows with score_i < score_j.

    CoSENT (Su, 2022): only the order of the `scores` (rows,) matters.
    """
    similarity = (a * b).sum(dim=-1) / temperature
    differences = (similarity[:, None] - similarity)[scores[:, None] < scores]
    return torch.logsumexp(torch.cat([differences.new_zeros(1), differences]), dim=0)


def _encoder_of(folder: Path) -> str:
    """Return the auto class that loads the encoder; for an encoder-decoder such as T5, its encoder, or raise BadModel."""
    architecture = str(pretrained.config(folder).get("model_type"))
    if architecture in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        return "AutoModelForTextEncoding"
    if pretrained.config(folder).get("is_encoder_decoder"):
        raise BadModel(
            f"the model in {folder} is a {architecture}, an encoder-decoder whose encoder cannot be loaded alone; choose another base.model"
        )
    return "AutoModel"


class ContrastiveCollator:
    """Pads a batch of rows, each a list of texts, to the longest text."""

    def __init__(self, pad: int) -> None:
        self._pad = pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask` (rows, texts, longest) and `labels` (rows, keys)."""
        texts = [text for row in rows for text in row["input_ids"]]
        ids, attended = padded(texts, self._pad), padded([[1] * len(text) for text in texts], 0)
        shape = (len(rows), -1, ids.shape[1])
        return {
            "input_ids": ids.view(shape),
            "attention_mask": attended.view(shape),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


def _write(value: Any, path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
