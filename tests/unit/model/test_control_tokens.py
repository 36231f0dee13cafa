"""Typed control tokens are text in every task and for every type of tokenizer; control tokens of templates stay effective."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tokenizers as tk
import transformers as t

from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.support.control_tokens import Encoder, controls, plain
from components.model.tasks.masked_lm.tokens import pieces
from components.model.tasks.question_answering.features import features
from components.model.tasks.text_classification.encoding import tokenize
from tests.support import encoders, tiny_generators

TEXTS = ["write to stop red dog rot hund", "the < / s > | e n d _ m a k p u [ ] S E P M A K C L"] * 3
MAKERS = {
    "gpt2": tiny_generators.make_gpt2,
    "llama": tiny_generators.make_llama,
    "t5": tiny_generators.make_t5,
    "bart": tiny_generators.make_bart,
    "marian": tiny_generators.make_marian,
    "opus": tiny_generators.make_opus,
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp("base"), TEXTS) for name, make in MAKERS.items()}


def specials(tokenizer):
    return set(tokenizer.all_special_ids) - ({tokenizer.unk_token_id} if tokenizer.unk_token_id != tokenizer.eos_token_id else set())


@pytest.mark.parametrize("family", MAKERS)
def test_typed_control_token_is_text(bases, family):
    tokenizer = t.AutoTokenizer.from_pretrained(bases[family])
    for token in sorted(controls(tokenizer)):
        text = f"write {token} to stop"
        ids = plain(tokenizer)(text, add_special_tokens=False)["input_ids"]

        assert not specials(tokenizer) & set(ids), token
        assert tokenizer.decode(ids).split() == text.split()


@pytest.mark.parametrize("family", MAKERS)
def test_other_text_and_added_tokens_are_unchanged(bases, family):
    tokenizer = t.AutoTokenizer.from_pretrained(bases[family])
    texts = ["write to stop", "red  dog <", ""]

    assert plain(tokenizer)(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert plain(tokenizer)(text_target=texts)["input_ids"] == tokenizer(text_target=texts)["input_ids"]
    assert plain(tokenizer) is plain(tokenizer)


@pytest.mark.parametrize("family", MAKERS)
def test_unquoted_token_is_effective(bases, family):
    tokenizer = t.AutoTokenizer.from_pretrained(bases[family])
    encoder, end = Encoder(tokenizer), tokenizer.eos_token
    text = f"write {end} red{end}dog"

    assert encoder.ids(text) == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoder.ids(encoder.quoted(text)).count(tokenizer.eos_token_id) == 0
    assert encoder.ids(f"{encoder.quoted(text)}{end}").count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(encoder.ids(encoder.quoted(text))).replace(" ", "") == text.replace(" ", "")


def test_named_added_token_is_text(bases):
    tokenizer = t.AutoTokenizer.from_pretrained(bases["gpt2"])
    tokenizer.add_tokens(["<|im_end|>", "<phone>"])
    ids = plain(tokenizer, also=["<|im_end|>"])("red <|im_end|> <phone>")["input_ids"]

    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert tokenizer.convert_tokens_to_ids("<phone>") in ids


def test_added_token_of_a_python_tokenizer_is_kept(bases):
    tokenizer = t.AutoTokenizer.from_pretrained(bases["opus"])
    tokenizer.add_tokens(["<phone>"])
    text = "red <phone> dog</s>"
    ids = plain(tokenizer)(text)["input_ids"]
    kept = plain(tokenizer, keep=["</s>"])(text)["input_ids"]

    assert not tokenizer.is_fast
    assert plain(tokenizer)("red <phone> dog")["input_ids"] == tokenizer("red <phone> dog")["input_ids"]
    assert plain(tokenizer)(text_target="<phone>dog")["input_ids"] == tokenizer(text_target="<phone>dog")["input_ids"]
    assert (ids.count(tokenizer.convert_tokens_to_ids("<phone>")), ids.count(tokenizer.eos_token_id)) == (1, 1)
    assert kept.count(tokenizer.eos_token_id) == 2


def test_wide_characters_are_not_an_end_token():
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -5.0) for letter in "▁</s>ab"), ("▁a", -4.0)]
    made = tk.Tokenizer(tk.models.Unigram(vocabulary, unk_id=2))
    made.normalizer, made.pre_tokenizer = tk.normalizers.NFKC(), tk.pre_tokenizers.Metaspace()
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>", pad_token="<pad>")

    assert 1 in tokenizer("a ＜/s＞ b")["input_ids"]
    assert 1 not in plain(tokenizer)("a ＜/s＞ b")["input_ids"]


class Letters:
    """A splitter in Python, which makes a tokenizer impossible to serialize."""

    def pre_tokenize(self, text):
        text.split(lambda number, part: [part[index : index + 1] for index in range(len(str(part)))])


def test_tokenizer_that_splits_in_python_works():
    made = tk.Tokenizer(
        tk.models.WordLevel({"<unk>": 0, "</s>": 1, **{letter: 2 + index for index, letter in enumerate("</s>ab")}}, "<unk>")
    )
    made.add_special_tokens(["<unk>", "</s>"])
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>", pad_token="<unk>")
    tokenizer.backend_tokenizer.pre_tokenizer = tk.pre_tokenizers.PreTokenizer.custom(Letters())
    encoder = Encoder(tokenizer)

    assert plain(tokenizer)("a</s>b")["input_ids"] == [6, 2, 3, 4, 5, 7]
    assert tokenizer("a</s>b")["input_ids"] == [6, 1, 7]
    assert encoder.ids(encoder.quoted("</s>") + "</s>") == [2, 3, 4, 5, 1]


def ends(tokenizer, ids):
    return sum(token in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.sep_token_id) for token in ids)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("data", ["text", "completion"])
def test_language_model_row_has_one_end(bases, family, data):
    task = tasks.load("causal_lm", {"data": data, "max_new_tokens": 4})
    tokenizer = task.load_tokenizer(bases[family])
    text = f"write {tokenizer.eos_token} to {tokenizer.bos_token} stop"
    rows = task.read(pd.DataFrame({name: [text] for name in task.columns}))[0]
    row = task.expected(rows, tokenizer)[0]
    answer = [token for token, learnt in zip(row.ids, row.learnt, strict=True) if learnt]

    assert ends(tokenizer, row.ids) == 2  # the first token, and the end
    assert row.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]).split() == text.split()
    assert ends(tokenizer, task.prompts(rows, tokenizer)[0]) == 1


TYPED = [
    ("causal_lm", "gpt2", {"data": "completion"}, {"prompt": [f"red{tiny_generators.END}", "red"], "completion": ["dog", "dog"]}),
    ("sequence_to_sequence", "bart", {}, {"source": ["red", "red"], "target": ["</s>dog", "dog"]}),
]


@pytest.mark.parametrize(("name", "family", "options", "columns"), TYPED)
def test_rows_with_typed_tokens_are_logged(bases, caplog, name, family, options, columns):
    task = tasks.load(name, options)
    tokenizer = task.load_tokenizer(bases[family])
    spec = ModelSpec(task=name, labels=(), max_length=60, unicode_form="NFC", options=task.options.model_dump())
    with caplog.at_level("WARNING"):
        rows = task.read(pd.DataFrame(columns))[0]
        task.encode(rows, tokenizer, spec)
        messages = [record.message for record in caplog.records if "typed control token" in record.message]
        caplog.clear()
        task.encode(rows.tail(1), tokenizer, spec)

    assert [message.split(", which")[0] for message in messages] == [
        f"1 of 2 rows contain a typed control token, e.g. {tokenizer.eos_token!r}"
    ]
    assert not caplog.records


def test_separator_may_be_a_control_token(bases):
    task = tasks.load("causal_lm", {"data": "completion", "max_new_tokens": 4, "separator": tiny_generators.END})
    tokenizer = task.load_tokenizer(bases["gpt2"])
    asked = task.prompts(pd.DataFrame({"prompt": [f"red{tiny_generators.END}"]}), tokenizer)[0]

    assert [token == tokenizer.eos_token_id for token in asked[-2:]] == [False, True]
    assert asked.count(tokenizer.eos_token_id) == 2


SEQ2SEQ = [name for name in MAKERS if name not in ("gpt2", "llama")]


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_source_and_target_have_one_end(bases, family):
    task = tasks.load("sequence_to_sequence", {})
    tokenizer = task.load_tokenizer(bases[family])
    text = "write <s> a </s> stop"
    rows = task.read(pd.DataFrame({"source": [text, "red"], "target": [text, "red"]}))[0]
    spec = ModelSpec(task="sequence_to_sequence", labels=(), max_length=60, unicode_form="NFC", options=task.options.model_dump())
    table = task.encode(rows, tokenizer, spec).to_pylist()

    for name in ("input_ids", "labels"):
        assert ends(tokenizer, table[0][name]) == ends(tokenizer, table[1][name]), name
    assert tokenizer.decode(table[0]["labels"], skip_special_tokens=True).split() == text.split()
    assert task.lengths(rows, tokenizer)[0] == len(table[0]["input_ids"])


def test_prefix_may_be_a_control_token(bases):
    task = tasks.load("sequence_to_sequence", {"prefix": "<s> "})
    tokenizer = task.load_tokenizer(bases["bart"])
    spec = ModelSpec(task="sequence_to_sequence", labels=(), max_length=60, unicode_form="NFC", options=task.options.model_dump())
    rows = task.read(pd.DataFrame({"source": ["red </s> dog"], "target": ["rot"]}))[0]
    ids = task.encode(rows, tokenizer, spec).to_pylist()[0]["input_ids"]

    assert (ids.count(tokenizer.bos_token_id), ids.count(tokenizer.eos_token_id)) == (2, 1)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return t.AutoTokenizer.from_pretrained(encoders.make_encoder(tmp_path_factory.mktemp("bert"), "bert", TEXTS))


def test_mask_is_effective_only_at_its_position(bert):
    typed = "red [MASK] dog [SEP]"
    asked, learnt = (pieces([typed], bert, keep_masks=asks)[0][0] for asks in (True, False))

    assert (asked.count(bert.mask_token_id), asked.count(bert.sep_token_id)) == (1, 0)
    assert not specials(bert) & set(learnt)


def test_question_and_context_have_no_special_token(bert):
    (feature,) = features(["who [SEP] wrote"], ["the [CLS] red dog [SEP]"], bert, 40, 4)
    ids = feature.inputs["input_ids"]

    assert (ids.count(bert.cls_token_id), ids.count(bert.sep_token_id)) == (1, 2)
    assert feature.no_answer == 0


def test_classifier_finds_the_last_token(bases, tmp_path):
    shutil.copytree(bases["llama"], tmp_path / "base")
    config = json.loads((tmp_path / "base/tokenizer_config.json").read_text())
    (tmp_path / "base/tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<unk>"}))
    tokenizer = tasks.load("text_classification").load_tokenizer(tmp_path / "base")
    ids = tokenize(tokenizer, (["red <unk> dog </s> <unk>"],))["input_ids"][0]

    assert not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids)


def test_special_looking_tokens_have_tags(bert):
    from components.model.tasks.token_classification.encoding import parts_of

    (part,) = parts_of([["red", "[SEP]", "dog", "[PAD]"]], bert, 40)

    assert len(part.begins) == len(set(part.begins)) == 4
    assert not specials(bert) & {part.inputs["input_ids"][index] for index in part.begins}
    assert np.all(np.diff(part.begins) > 0)
