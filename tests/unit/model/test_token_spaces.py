"""Sub-words of a tokenized sentence equal those of its text, for every handling of spaces."""

import pytest
import tokenizers as tk
import transformers as t

from components.model.tasks.token_classification.encoding import parts_of
from components.model.tasks.token_classification.rows import Rows

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = ["london town is in england", "Ada don't say: (old) towns, new ones", "Überall größe 東京 was"] * 4
SENTENCES = [["london", "town", "is", "in", "england"], ["town"], ["Ada", "don't", "(", "old", ")", "größe", "東京", "."]]


def train(model, pre_tokenizer, trainer, normalizer=None, learnt_with=None):
    """Train a tokenizer; `learnt_with` is the pre-tokenizer for training, as in SentencePiece."""
    tokenizer = tk.Tokenizer(model)
    tokenizer.pre_tokenizer = learnt_with or pre_tokenizer
    if normalizer is not None and not learnt_with:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(TEXTS, trainer)
    if learnt_with:
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = tk.processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return t.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def byte_pairs(pre_tokenizer, normalizer=None, byte=False, learnt_with=None):
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet() if byte else []
    trainer = tk.trainers.BpeTrainer(vocab_size=330, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    return train(tk.models.BPE(unk_token=None if byte else "[UNK]"), pre_tokenizer, trainer, normalizer, learnt_with)


def unigram(pre_tokenizer, normalizer=None):
    trainer = tk.trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    return train(tk.models.Unigram(), pre_tokenizer, trainer, normalizer)


def word_pieces(normalizer=None):
    trainer = tk.trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL, show_progress=False)
    return train(tk.models.WordPiece(unk_token="[UNK]"), tk.pre_tokenizers.BertPreTokenizer(), trainer, normalizer)


def levels():
    trainer = tk.trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False)
    return train(tk.models.WordLevel(unk_token="[UNK]"), tk.pre_tokenizers.Whitespace(), trainer)


pre, norm = tk.pre_tokenizers, tk.normalizers
GEMMA = norm.Replace(" ", "▁")
LLAMA = norm.Sequence([norm.Prepend("▁"), norm.Replace(" ", "▁")])
GPT4 = tk.Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
FAMILIES = {
    "byte-level": lambda: byte_pairs(pre.ByteLevel(add_prefix_space=False), byte=True),
    "byte-level with prefix space": lambda: byte_pairs(pre.ByteLevel(add_prefix_space=True), byte=True),
    "byte-level after a split": lambda: byte_pairs(
        pre.Sequence([pre.Split(GPT4, "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]), byte=True
    ),
    **{
        f"metaspace {scheme}": lambda scheme=scheme: byte_pairs(pre.Metaspace(prepend_scheme=scheme))
        for scheme in ("always", "first", "never")
    },
    **{f"unigram {scheme}": lambda scheme=scheme: unigram(pre.Metaspace(prepend_scheme=scheme)) for scheme in ("always", "first", "never")},
    "spaces in the normalizer (Gemma)": lambda: byte_pairs(pre.Split(" ", "merged_with_previous"), GEMMA, learnt_with=pre.Metaspace()),
    "spaces and a prefix space (Llama)": lambda: byte_pairs(None, LLAMA, learnt_with=pre.Metaspace()),
    "unigram after NFKC": lambda: unigram(pre.Sequence([pre.WhitespaceSplit(), pre.Metaspace()]), norm.NFKC()),
    "word pieces": word_pieces,
    "lower-cased word pieces": lambda: word_pieces(norm.BertNormalizer(lowercase=True)),
    "whole words": levels,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_sub_words_equal_those_of_the_text(family):
    tokenizer = FAMILIES[family]()
    parts = parts_of(SENTENCES, tokenizer, 64)

    for part, sentence in zip(parts, SENTENCES, strict=True):
        assert part.inputs["input_ids"] == tokenizer(" ".join(sentence))["input_ids"]
        assert len(set(part.begins)) == len(sentence)
        assert part.begins == sorted(part.begins)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_begins_at_its_first_character(family):
    tokenizer = FAMILIES[family]()
    (part,) = parts_of(SENTENCES[:1], tokenizer, 64)
    shown = [tokenizer.decode(part.inputs["input_ids"][position]).strip(" ▁#Ġ") for position in part.begins]

    assert sum(map(bool, shown)) >= 3  # a piece may be only a space marker
    assert all(word.startswith(piece) for word, piece in zip(SENTENCES[0], shown, strict=True)), shown


@pytest.mark.parametrize("family", FAMILIES)
def test_words_of_raw_text_keep_their_spacing(family):
    tokenizer, rows, text = FAMILIES[family](), Rows("spans", "BIO"), "Ada don't say:  (old) towns, new."
    (part,) = parts_of([rows.tokens({"text": text})], tokenizer, 64, [rows.gaps({"text": text})])

    assert len(set(part.begins)) == len(rows.tokens({"text": text}))
    if len(part.inputs["input_ids"]) == len(tokenizer(text)["input_ids"]):
        assert part.inputs["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_long_sentence_is_split_between_tokens(family):
    tokenizer = FAMILIES[family]()
    sentence = ["london", "", "town", "\u200b", "is", "in"] * 5
    parts = parts_of([sentence], tokenizer, 16)

    assert [part.first for part in parts] == [0, *(part.last for part in parts[:-1])]
    assert parts[-1].last == len(sentence)
    assert all(len(part.begins) == len(set(part.begins)) == part.last - part.first and part.length <= 16 for part in parts)
