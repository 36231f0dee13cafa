"""Encoder-decoders in torch: loading, collation and generation. Imported on demand, because it imports torch."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import AutoConfig, DataCollatorForSeq2Seq, EncoderDecoderModel

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams, first_line
from components.core.text import normalise
from components.model.support import generation, pretrained
from components.model.support.batches import in_batches
from components.model.support.control_tokens import plain
from components.model.support.foreign_code import refuse_foreign_code
from components.model.tasks.sequence_to_sequence import Options, source_tokenizer

_PAIRED = ("bert", "roberta", "xlm-roberta", "camembert", "electra")  # encoders that transformers can turn into a decoder
_OFFSET = ("roberta", "xlm-roberta", "camembert")  # positions start after the padding id


def build(base: Path, tokenizer: Any, options: Options) -> Any:
    """Load the model in `base` with the generation settings of `options`; see `Task.build_model`."""
    config = _config(base)
    if config.is_encoder_decoder:
        model = pretrained.load_model("AutoModelForSeq2SeqLM", base, head=False)
    else:
        model = _pair(base, config.model_type, tokenizer)
    model.config.decoder_start_token_id = start_of(tokenizer)
    model.generation_config = generation.generation_config(model, tokenizer, **options.search())
    # EncoderDecoderModel warns at every pass that its loss changed after release 4.11.
    warnings.filterwarnings("ignore", "Version v4.12.0 introduces", FutureWarning)
    _refuse_too_long(model, options)
    return model


def _config(base: Path) -> Any:
    refuse_foreign_code(base)
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"the config in {base} cannot be loaded: {first_line(error)}") from error


def _pair(base: Path, architecture: str, tokenizer: Any) -> Any:
    """Build an encoder-decoder from an encoder.

    Rothe, Narayan & Severyn, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks" (2020).
    """
    if architecture not in _PAIRED:
        raise BadModel(
            f"the model in {base} is a {architecture}: expected an encoder-decoder (T5, BART, Marian …) or an encoder "
            f"({', '.join(_PAIRED)})"
        )
    encoder = pretrained.load_model("AutoModel", base)
    decoder = pretrained.load_model("AutoModelForCausalLM", base, fresh=("crossattention",), is_decoder=True, add_cross_attention=True)
    model: Any = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    model.generation_config.eos_token_id = model.config.eos_token_id
    return model


def _refuse_too_long(model: Any, options: Options) -> None:
    decoder: Any = model.config.decoder if isinstance(model, EncoderDecoderModel) else model.config
    positions = getattr(decoder, "max_position_embeddings", None)
    if positions is None:
        return
    positions -= decoder.pad_token_id + 1 if decoder.model_type in _OFFSET else 0
    for name in ("max_target_length", "max_new_tokens"):
        if (tokens := getattr(options, name)) > positions:
            raise BadParams(f"params.yaml: task_options.{name} is {tokens}, expected at most {positions}, the positions of the decoder")


def start_of(tokenizer: Any) -> int:
    """Return the decoder start token id, from the config, or else the first token of the tokenizer; raise BadModel if neither exists."""
    folder = Path(tokenizer.name_or_path)  # the collator has only the tokenizer
    configured = getattr(_config(folder), "decoder_start_token_id", None)
    generation_start = pretrained.settings(folder / "generation_config.json").get("decoder_start_token_id")
    for token in (configured, generation_start, tokenizer.cls_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    raise BadModel(f"{folder}/config.json has no decoder_start_token_id, and the tokenizer has neither a cls nor a bos token")


def target_ids(targets: list[str], tokenizer: Any) -> list[list[int]]:
    """Return the token ids of targets, with the end token and without the decoder start token."""
    start = start_of(tokenizer)
    encoded = plain(tokenizer)(text_target=targets, truncation=False, padding=False, verbose=False)["input_ids"]
    return [ids[1:] if len(ids) > 1 and ids[0] == start else ids for ids in encoded]


class Seq2SeqCollator:
    """Pads sources, pads targets with -100, and adds the decoder inputs (shifted targets).

    The model cannot shift them, because label smoothing removes the labels before the forward pass.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._pad = DataCollatorForSeq2Seq(tokenizer)
        self._pad_id = tokenizer.pad_token_id
        self._start = start_of(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch as tensors."""
        batch: dict[str, Any] = dict(self._pad(rows))
        labels = batch["labels"]
        start = torch.full((len(labels), 1), self._start, dtype=labels.dtype)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return batch | {"decoder_input_ids": shifted.masked_fill(shifted == -100, self._pad_id), "use_cache": False}


class Seq2SeqGenerator:
    """A trained sequence-to-sequence model."""

    def __init__(self, folder: Path, options: Options, tokenizer: Any) -> None:
        """Load model and retune.json from `folder`; raise NotFound or BadModel."""
        self.spec = ModelSpec.read(folder)
        self._options = options
        self._tokenizer = tokenizer
        self._model = build(folder, tokenizer, options).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Generate a target for each `source`, batched by length to reduce padding."""
        texts = [self._options.prefix + normalise(str(text), self.spec.unicode_form) for text in rows["source"]]
        return ModelOutput.texts(in_batches(texts, batch_size, lambda text: (len(text), text), self._write))

    def _write(self, texts: Sequence[str]) -> list[str]:
        encode = source_tokenizer(self._tokenizer, self._options.prefix)
        inputs = encode(list(texts), truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            generated = self._model.generate(**inputs)
        return [text.strip() for text in self._tokenizer.batch_decode(generated, skip_special_tokens=True)]
