"""Encoder-decoders in torch: loaded, or made of an encoder; what their batches are; and how they write.

Imported only where a model is at hand, for it imports torch.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from transformers import AutoConfig, DataCollatorForSeq2Seq, EncoderDecoderModel

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams, first_line
from components.core.text import UnicodeForm, normalise
from components.model.support import generation, pretrained
from components.model.support.control_tokens import plain
from components.model.support.foreign_code import refuse_foreign_code
from components.model.tasks.sequence_to_sequence import Options, reading

_PAIRED = ("bert", "roberta", "xlm-roberta", "camembert", "electra")  # encoders that transformers can turn into a decoder
_OFFSET = ("roberta", "xlm-roberta", "camembert")  # count positions from the padding id on


def build(base: Path, tokenizer: Any, options: Options) -> Any:
    """Load the model in `base`, with its search settings put as `options` say; see `Task.build_model`."""
    config = _config(base)
    if config.is_encoder_decoder:
        model = pretrained.load_model("AutoModelForSeq2SeqLM", base, head=False)
    else:
        model = _pair(base, config.model_type, tokenizer)
    model.config.decoder_start_token_id = start_of(tokenizer)
    model.generation_config = generation.generation_config(model, tokenizer, **options.search())
    # EncoderDecoderModel warns at every pass that its loss is no longer that of release 4.11.
    warnings.filterwarnings("ignore", "Version v4.12.0 introduces", FutureWarning)
    _refuse_too_long(model, options)
    return model


def _config(base: Path) -> Any:
    refuse_foreign_code(base)
    try:
        return AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"the config in {base} cannot be loaded: {first_line(error)}") from error


def _pair(base: Path, kind: str, tokenizer: Any) -> Any:
    """Make an encoder-decoder of an encoder.

    Rothe, Narayan & Severyn, "Leveraging Pre-trained Checkpoints for Sequence Generation Tasks" (2020).
    """
    if kind not in _PAIRED:
        raise BadModel(
            f"the model in {base} is a {kind}: expected an encoder-decoder (T5, BART, Marian …), or an encoder that can become one "
            f"({', '.join(_PAIRED)})"
        )
    encoder = pretrained.load_model("AutoModel", base)
    made_anew = ("crossattention",)  # an encoder has none
    decoder = pretrained.load_model("AutoModelForCausalLM", base, fresh=made_anew, is_decoder=True, add_cross_attention=True)
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
            raise BadParams(f"params.yaml: task_options.{name} is {tokens}, and the base model's decoder has {positions} positions")


def start_of(tokenizer: Any) -> int:
    """Return the id of the token that the decoder starts from: the config's, or for an encoder's folder the one that begins its texts.

    Raises:
        BadModel: neither config nor tokenizer names one.
    """
    folder = Path(tokenizer.name_or_path)  # a collator knows no other way to the config
    named = getattr(_config(folder), "decoder_start_token_id", None)
    written = pretrained.settings(folder / "generation_config.json").get("decoder_start_token_id")
    for found in (named, written, tokenizer.cls_token_id, tokenizer.bos_token_id):
        if found is not None:
            return int(found)
    raise BadModel(f"{folder}/config.json has no decoder_start_token_id, and the tokenizer no token that begins a text")


def target_ids(targets: list[str], tokenizer: Any) -> list[list[int]]:
    """Return the token ids of targets, with the end and without the token that the decoder starts from."""
    start = start_of(tokenizer)
    found = plain(tokenizer)(text_target=targets, truncation=False, padding=False, verbose=False)["input_ids"]
    return [ids[1:] if len(ids) > 1 and ids[0] == start else ids for ids in found]


class Collator:
    """Makes a batch of encoded rows: sources padded, targets padded with -100, and shifted into what the decoder reads.

    The shift stands here and not in the model because label smoothing takes the labels away before the model sees them.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Pad as `tokenizer` does."""
        self._pad = DataCollatorForSeq2Seq(tokenizer)
        self._pad_id = tokenizer.pad_token_id
        self._start = start_of(tokenizer)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch as tensors."""
        batch: dict[str, Any] = dict(self._pad(rows))
        labels = batch["labels"]
        start = torch.full((len(labels), 1), self._start, dtype=labels.dtype)
        read = torch.cat([start, labels[:, :-1]], dim=1)
        return batch | {"decoder_input_ids": read.masked_fill(read == -100, self._pad_id), "use_cache": False}


class Writer:
    """A trained model that answers raw sources; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path, options: Options, tokenizer: Any) -> None:
        """Load model and retune.json from `folder`.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        self.spec = ModelSpec.read(folder)
        self._options = options
        self._tokenizer = tokenizer
        self._model = build(folder, tokenizer, options).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer the column `source` of `rows`: batched by length, so that little is padding."""
        form = cast(UnicodeForm, self.spec.unicode_form)
        texts = [self._options.prefix + normalise(str(text), form) for text in rows["source"]]
        order = sorted(range(len(texts)), key=lambda place: (len(texts[place]), texts[place]))
        answers = [""] * len(texts)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, written in zip(places, self._write([texts[place] for place in places]), strict=True):
                answers[place] = written
        return ModelOutput.texts(answers)

    def _write(self, texts: Sequence[str]) -> list[str]:
        reads = reading(self._tokenizer, self._options.prefix)
        inputs = reads(list(texts), truncation=True, max_length=self.spec.max_length, padding=True, return_tensors="pt")
        with torch.inference_mode():
            written = self._model.generate(**inputs)
        return [text.strip() for text in self._tokenizer.batch_decode(written, skip_special_tokens=True)]
