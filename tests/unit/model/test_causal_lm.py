"""Causal language modelling on random two-layer GPT-2 and Llama models."""

import json
import random
import shutil
import statistics

import numpy as np
import pandas as pd
import pytest
import torch

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel, BadParams
from components.model import tasks
from components.model.tasks.causal_lm import _model, _texts
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support import tiny_generators
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.labelled import predict_baselines, statistics_of
from tests.support.learn import make_learn

WORDS = {"red": "rot", "blue": "blau", "dog": "hund", "cat": "katze", "eats": "frisst", "runs": "rennt", "big": "gross", "old": "alt"}
OPTIONS = {kind: {"data": kind, "max_new_tokens": 6} for kind in ("text", "completion", "chat")}
TASKS = {kind: tasks.load("causal_lm", options) for kind, options in OPTIONS.items()}
PLAIN = QUICK.model_copy(update={"metric": "log_likelihood"})


def phrases(rows=160):
    rng = random.Random(5)
    rows_of_phrases = []
    for number in range(rows):
        words = rng.sample(sorted(WORDS), rng.randint(1, 3))
        prompt, completion = " ".join(words), " ".join(WORDS[word] for word in words)
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        rows_of_phrases.append(
            {
                "id": f"p{number:03d}",
                "group": f"g{number:03d}",
                "prompt": prompt,
                "completion": completion,
                "messages": json.dumps(chat),
                "text": f"{prompt} {completion}",
            }
        )
    return pd.DataFrame(rows_of_phrases)


def rows_of(kind, rows=160):
    frame = phrases(rows)[["id", "group", *TASKS[kind].columns]]
    return TASKS[kind].read(frame)[0]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    texts = [*phrases()["text"], "user assistant ### system"] * 2
    return {name: make(tmp_path_factory.mktemp("base"), texts) for name, make in tiny_generators.CAUSAL_FAMILIES.items()}


def learn_of(folder, base, kind, **changes):
    return PreparedSplits.read(make_learn(folder / "learn", base, rows_of(kind), 40, "causal_lm", OPTIONS[kind] | changes))


def save(task, model, base, spec, folder):
    model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    spec.write(folder)
    return folder


def spec_for(kind, width=16, **changes):
    return ModelSpec(task="causal_lm", labels=(), max_length=width, unicode_form="NFC", options=OPTIONS[kind] | changes)


@pytest.fixture(scope="module", params=[("gpt2", "completion"), ("llama", "chat"), ("tied llama", "text")], ids="-".join)
def fitted(request, bases, tmp_path_factory):
    """Return a trained model, its losses, its data format and its folder."""
    family, kind = request.param
    folder = tmp_path_factory.mktemp("fitted")
    learn, keep = learn_of(folder, bases[family], kind), keep_in(folder / "out")
    outcome = fit(TASKS[kind], bases[family], learn, PLAIN.model_copy(update={"epochs": 8}), keep=keep)
    losses = [line["loss"] for line in map(json.loads, keep.history.read_text().splitlines()) if "loss" in line]
    return outcome, losses, kind, save(TASKS[kind], outcome.model, bases[family], learn.spec, folder / "model")


@pytest.mark.slow
def test_every_family_trains_and_reloads(fitted, tmp_path):
    outcome, losses, kind, folder = fitted
    task, spec, rows = TASKS[kind], ModelSpec.read(fitted[3]), rows_of(kind).head(12)
    again = save(task, task.build_model(folder, spec), folder, spec, tmp_path / "again")
    answers, again_answers = (task.predictor(path).answer(rows) for path in (folder, again))

    assert statistics.fmean(losses[-4:]) < 0.7 * losses[0]
    assert answers.predicted == again_answers.predicted
    assert len(set(answers.predicted)) > 1 or kind == "text"
    assert all(np.array_equal(answers.measured[name], again_answers.measured[name]) for name in answers.measured)
    ids = torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        assert torch.equal(outcome.model.eval()(input_ids=ids).logits, task.build_model(folder, spec)(input_ids=ids).logits)


def test_answers_do_not_depend_on_batching(fitted):
    _, _, kind, folder = fitted
    rows, writer = rows_of(kind).head(20), TASKS[kind].predictor(folder)
    together, alone = writer.answer(rows, 20), writer.answer(rows, 1)
    backwards = writer.answer(rows.iloc[::-1], 3)

    assert together.predicted == alone.predicted == backwards.predicted[::-1]
    for name, values in together.measured.items():
        np.testing.assert_allclose(values, backwards.measured[name][::-1], atol=1e-4)


def test_serving_and_evaluation_give_equal_answers(fitted):
    _, _, kind, folder = fitted
    rows, writer = rows_of(kind).head(10), TASKS[kind].predictor(folder)
    requests = rows[list(TASKS[kind].inputs)]
    if kind == "chat":
        requests = requests.assign(messages=[json.dumps(json.loads(cell)[:-1]) for cell in requests["messages"]])

    assert writer.answer(requests).predicted == writer.answer(rows).predicted
    assert writer.answer(requests).measured == {}


def test_log_likelihood_equals_manual_computation(fitted):
    _, _, kind, folder = fitted
    task, rows = TASKS[kind], rows_of(kind).head(20)
    measured = task.predictor(folder).answer(rows).measured
    model, tokenizer, compared = task.build_model(folder, ModelSpec.read(folder)), task.load_tokenizer(folder), False
    for index, row in enumerate(task.expected(rows, tokenizer)):
        if len(row.ids) > ModelSpec.read(folder).max_length:
            continue  # the context is truncated
        compared = True
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
        by_hand = sum(float(scores[position - 1, token]) for position, token in enumerate(row.ids) if row.learnt[position])
        assert measured["log_likelihood"][index] == pytest.approx(by_hand, abs=1e-4)
        assert measured["tokens"][index] == sum(row.learnt)
    assert compared
    assert measured["bytes"].tolist() == [len(label.encode()) for label in rows["label"]]


@pytest.mark.slow
def test_trained_model_learns_the_end_token(bases, tmp_path):
    # Padding is the end token here, but the loss must still include the real end.
    task, learn = TASKS["completion"], learn_of(tmp_path, bases["gpt2"], "completion")
    tokenizer = task.load_tokenizer(bases["gpt2"])
    batch = task.collator(tokenizer, learn.spec)([learn.train[index] for index in range(12)])
    ends = (batch["labels"] == tokenizer.eos_token_id).sum(dim=1)
    model = fit(task, bases["gpt2"], learn, PLAIN.model_copy(update={"epochs": 25})).model
    folder = save(task, model, bases["gpt2"], learn.spec, tmp_path / "model")
    rows = rows_of("completion").tail(60)
    answers = task.predictor(folder).answer(rows)

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert ends.tolist() == [1] * 12
    assert np.mean([len(text.split()) == len(label.split()) for text, label in zip(answers.predicted, rows["label"], strict=True)]) > 0.6


METHODS = {
    "full": {},
    "freeze": {"method": "freeze", "frozen_layers": 1},
    "lora": {"method": "lora", "lora_targets": "all-linear"},
    "dora": {"method": "lora", "lora_dora": True},
    "smoothed": {"label_smoothing": 0.1, "neftune": 1.0},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(("family", "packing"), [("gpt2", True), ("llama", False)])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_resumes_exactly(family, packing, method, bases, tmp_path):
    task = tasks.load("causal_lm", OPTIONS["completion"] | {"packing": packing})
    learn = learn_of(tmp_path, bases[family], "completion", packing=packing)
    settings = PLAIN.model_copy(update={"batch_size": 4} | METHODS[method])
    whole, resumed = cut_and_resumed(task, bases[family], learn, settings, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    folder = save(task, whole.model, bases[family], learn.spec, tmp_path / "model")
    plain, loaded, ids = task.build_model(bases[family], learn.spec), task.build_model(folder, learn.spec), torch.arange(12).reshape(2, 6)

    assert same(weights(whole.model), weights(resumed.model))
    assert statistics.fmean(losses[-4:]) < 0.97 * losses[0]
    assert whole.model.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(whole.model.eval()(input_ids=ids).logits, loaded(input_ids=ids).logits)


@pytest.mark.slow
def test_same_seed_gives_same_weights(bases, tmp_path):
    learn = learn_of(tmp_path, bases["llama"], "text")
    first, second = (weights(fit(TASKS["text"], bases["llama"], learn, PLAIN.model_copy(update={"epochs": 1})).model) for _ in range(2))

    assert same(first, second)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", tiny_generators.CAUSAL_FAMILIES)
def test_packed_texts_do_not_see_each_other(family, attention, bases):
    task = tasks.load("causal_lm", OPTIONS["text"] | {"packing": True})
    tokenizer, spec = task.load_tokenizer(bases[family]), spec_for("text", 40, packing=True)
    rows = rows_of("text").head(9)
    encoded = task.encode(rows, tokenizer, spec).to_pylist()
    batch = task.collator(tokenizer, spec)([{name: row[name] for name in row if name != "length"} for row in encoded])
    model = task.build_model(bases[family], spec)
    model.set_attn_implementation(attention)
    with torch.no_grad():
        packed = model(**batch).logits
        texts = [packed[row_index][span] for row_index, row in enumerate(encoded) for span in _spans(row["position_ids"])]
        alone = [model(input_ids=torch.tensor([row.ids])).logits[0] for row in task.expected(rows, tokenizer)]

    assert 1 < len(encoded) < len(rows) == len(texts)
    assert len({row["length"] for row in encoded}) > 1  # some rows are padded
    for packed_logits, alone_logits in zip(texts, alone, strict=True):
        np.testing.assert_allclose(packed_logits, alone_logits, atol=1e-4)
    assert (batch["labels"] == tokenizer.eos_token_id).sum() == len(rows)


def _spans(positions):
    starts = [index for index, position in enumerate(positions) if position == 0]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(positions)], strict=True)]


def test_model_without_packing_support_is_rejected(bases, tmp_path):
    from transformers import BloomConfig, BloomForCausalLM

    task = tasks.load("causal_lm", OPTIONS["text"] | {"packing": True})
    tokenizer = task.load_tokenizer(bases["gpt2"])
    tokenizer.save_pretrained(tmp_path)
    BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2, initializer_range=0.5)).save_pretrained(
        tmp_path
    )

    with pytest.raises(BadModel, match=r"a bloom, which does not separate packed texts; set task_options\.packing: false"):
        task.build_model(tmp_path, spec_for("text"))
    assert TASKS["text"].build_model(tmp_path, spec_for("text"))


def test_non_causal_model_is_rejected(tiny_base):
    with pytest.raises(BadModel, match=r"is not causal|no end token"):
        TASKS["text"].build_model(tiny_base, spec_for("text"))


def test_only_completion_and_end_are_learnt(bases):
    task, tokenizer = TASKS["completion"], TASKS["completion"].load_tokenizer(bases["gpt2"])
    row = task.encode(rows_of("completion").head(1), tokenizer, spec_for("completion")).to_pylist()[0]
    learnt = [token for token in row["labels"] if token != -100]
    context = row["input_ids"][: row["labels"].index(learnt[0])]

    assert tokenizer.decode(learnt) == rows_of("completion")["label"][0] + tiny_generators.END
    assert tokenizer.decode(context) == tiny_generators.END + rows_of("completion")["text"][0] + "\n"
    assert "position_ids" not in row


def test_only_assistant_turns_are_learnt(bases):
    turns_of_chat = [("system", "old"), ("user", "red"), ("assistant", "rot"), ("user", "blue"), ("assistant", "blau")]
    frame = pd.DataFrame({"messages": [json.dumps([{"role": role, "content": content} for role, content in turns_of_chat])]})
    for turns, expected in (("all", ["rot", "blau"]), ("last", ["blau"])):
        task = tasks.load("causal_lm", OPTIONS["chat"] | {"turns": turns})
        tokenizer = task.load_tokenizer(bases["gpt2"])
        row = task.encode(task.read(frame)[0], tokenizer, spec_for("chat", 60)).to_pylist()[0]
        whole = tokenizer.decode(row["input_ids"])

        assert tokenizer.decode([token for token in row["labels"] if token != -100]) == "".join(
            text + tiny_generators.END for text in expected
        )
        assert whole.startswith("### system\nold\n### user\nred\n### assistant\nrot<|end|>\n### user\nblue\n### assistant\nblau<|end|>")
    assert task.read(frame)[0]["label"][0] == "blau"
    assert task.read(frame)[0]["text"][0] == "system: old\nuser: red\nassistant: rot\nuser: blue"


def test_chat_template_of_the_tokenizer_is_kept(bases, tmp_path):
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    task, tokenizer = TASKS["chat"], TASKS["chat"].load_tokenizer(bases["gpt2"])
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(bases["gpt2"] / "config.json", tmp_path)
    reader = task.reader(loaded := task.load_tokenizer(tmp_path))
    (row,) = reader.chat([{"role": "user", "content": "red"}, {"role": "assistant", "content": "rot"}])

    assert loaded.chat_template == template
    assert loaded.decode([token for token, learnt in zip(row.ids, row.learnt, strict=True) if learnt]) == "rot<|im_end|>"
    assert reader.stops() == sorted([loaded.eos_token_id, loaded.convert_tokens_to_ids("<|im_end|>")])


def test_rewritten_turns_become_separate_sequences(bases):
    task, tokenizer = TASKS["chat"], TASKS["chat"].load_tokenizer(bases["gpt2"])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last or m.role == 'user' else '…' }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    messages = [{"role": role, "content": "red"} for role in ("user", "assistant", "user", "assistant")]

    first, second = task.reader(tokenizer).chat(messages)
    assert tokenizer.decode(first.ids) == f"user: red\nassistant: red{tiny_generators.END}"
    assert tokenizer.decode(second.ids) == f"user: red\nassistant: …\nuser: red\nassistant: red{tiny_generators.END}"
    assert task.reader(tokenizer).chat(messages, "last") == [second]


USER, BLANK = '{"role": "user", "content": "a"}', '{"role": "assistant", "content": " "}'
UNSEEN = '{"role": "assistant", "content": "\u200b"}'
ASSISTANT, SYSTEM = '{"role": "assistant", "content": "a"}', '{"role": "system", "content": "a"}'
ORDER = "messages: roles out of order:"
BROKEN = {
    "[": "messages is not JSON",
    USER: "messages is not a list of objects",
    '["hello"]': "messages is not a list of objects",
    '[{"role": "user", "content": 7}]': "messages: a turn without text in role and content",
    f"[{USER}]": "messages: the last turn is not from the assistant",
    f"[{ASSISTANT}]": f"{ORDER} expected user, found assistant",
    f"[{USER}, {USER}]": f"{ORDER} expected assistant, found user",
    f"[{USER}, {SYSTEM}]": f"{ORDER} expected assistant, found system",
    f"[{USER}, {BLANK}]": "messages: a turn of the assistant is empty",
    f"[{USER}, {UNSEEN}]": "messages: a turn of the assistant is empty",
    f"[{USER}, {UNSEEN}, {USER}, {ASSISTANT}]": "messages: a turn of the assistant is empty",
    f'[{{"role": "user", "content": ""}}, {ASSISTANT}]': "messages: a turn of the user is empty",
    "[]": "messages: the last turn is not from the assistant",
}


def test_invalid_conversations_are_rejected_with_a_reason(bases):
    good = phrases(1)["messages"][0]
    read, faults = TASKS["chat"].read(pd.DataFrame({"messages": [*BROKEN, good]}))

    assert faults == dict(enumerate(BROKEN.values()))
    assert read["label"].iloc[-1] == phrases(1)["completion"][0]
    with pytest.raises(BadData, match="messages is not JSON"):
        TASKS["chat"].prompts(pd.DataFrame({"messages": ["["]}), TASKS["chat"].load_tokenizer(bases["gpt2"]))


@pytest.mark.parametrize("width", [4, 5, 8, 100])
@pytest.mark.parametrize("context", [1, 3, 30])
def test_every_token_of_a_long_row_is_learnt_once(width, context):
    row = _texts.Ids(list(range(context + 17)), [False] * context + [True] * 17)
    parts = list(_texts.windows(row, width))

    assert [token for part in parts for token in _texts.labels(part) if token != -100] == list(range(context, context + 17))
    assert all(len(part.ids) <= width and _texts.labels(part)[0] == -100 for part in parts)
    assert len(parts[0].ids) > 1


def test_long_text_is_measured_completely(bases, tmp_path):
    rows = TASKS["text"].read(pd.DataFrame({"text": ["red dog eats " * 12, "cat"]}))[0]
    folder = save(
        TASKS["text"], TASKS["text"].build_model(bases["llama"], spec_for("text")), bases["llama"], spec_for("text"), tmp_path / "m"
    )
    measured = TASKS["text"].predictor(folder).answer(rows).measured
    tokenizer = TASKS["text"].load_tokenizer(folder)

    assert measured["tokens"].tolist() == [len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1 for text in rows["text"]]
    assert TASKS["text"].encode(rows, tokenizer, spec_for("text")).num_rows > 3
    assert TASKS["text"].lengths(rows, tokenizer).tolist() == [tokens + 1 for tokens in measured["tokens"]]


@pytest.mark.parametrize("kind", TASKS)
def test_baselines_answer_with_likelihoods(kind, bases):
    rows = rows_of(kind)
    answers = predict_baselines(TASKS[kind], rows.head(100), rows.tail(20), spec_for(kind), bases["gpt2"])
    for name, metric in TASKS[kind].test_metrics.items():
        for output in answers.values():
            predictions = Predictions.from_output(rows.tail(20), output)
            assert np.isfinite(metric.of(statistics_of(TASKS[kind], predictions))), name
    per_token = TASKS[kind].test_metrics["log_likelihood_per_token"]

    assert tuple(answers) == TASKS[kind].baselines
    assert all(output.measured["tokens"].sum() == answers["base"].measured["tokens"].sum() for output in answers.values())
    assert per_token.of(answers["unigram"].measured) > per_token.of(answers["base"].measured)  # the base is random


@pytest.mark.parametrize("kind", TASKS)
def test_slices_and_tables_cover_all_rows(kind):
    rows = rows_of(kind).head(30)
    measured = {name: np.full(30, value) for name, value in (("log_likelihood", -6.0), ("tokens", 3.0), ("hits", 1.0), ("bytes", 6.0))}
    columns = (np.array(list(column)) for column in (rows["id"], rows["group"], rows["label"], rows["label"]))
    tables = TASKS[kind].tables(rows, Predictions(*columns, np.zeros((30, 0)), (), measured))
    slices = TASKS[kind].slices(rows)

    assert tables[0].rows[0] == ("perplexity per token", round(np.exp(2), 3))
    assert all(len(values) == 30 for values in slices.values())
    assert (
        set(slices)
        == {"text": {"length"}, "completion": {"prompt_length", "answer_length"}, "chat": {"prompt_length", "answer_length", "turns"}}[kind]
    )


def test_unused_settings_and_missing_room_are_rejected(bases):
    with pytest.raises(BadParams, match="turns is used only with data chat, not text"):
        tasks.load("causal_lm", {"turns": "last"})
    with pytest.raises(BadParams, match="separator is used only with data completion"):
        tasks.load("causal_lm", {"data": "chat", "separator": ""})
    with pytest.raises(BadParams, match=r"max_new_tokens is 32, expected below preprocess\.max_length 16"):
        tasks.load("causal_lm").build_model(bases["gpt2"], spec_for("text"))


@pytest.mark.parametrize("field", [{"r_drop": 1.0}, {"calibration": "temperature"}])
def test_unsupported_settings_are_rejected(bases, tmp_path, field):
    with pytest.raises(BadParams, match="the task refuses it"):
        fit(TASKS["text"], bases["gpt2"], learn_of(tmp_path, bases["gpt2"], "text"), PLAIN.model_copy(update=field))


def test_tokenizer_without_end_token_is_rejected(bases, tmp_path):
    tokenizer = TASKS["text"].load_tokenizer(bases["llama"])
    tokenizer.eos_token = None
    tokenizer.pad_token = "<unk>"
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(bases["llama"] / "config.json", tmp_path)

    with pytest.raises(BadModel, match="no end token"):
        TASKS["text"].load_tokenizer(tmp_path)


def test_padding_is_masked_even_if_it_is_the_end_token():
    batch = _model.CausalLMCollator(0, packed=False)(
        [{"input_ids": [5, 0], "labels": [-100, 0]}, {"input_ids": [5, 6, 0], "labels": [-100, 6, 0]}]
    )

    assert batch["labels"].tolist() == [[-100, 0, -100], [-100, 6, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
