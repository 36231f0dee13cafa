"""Chat templates of many formats: only the answer and its end are learnt and returned."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.model import tasks
from components.model.tasks.causal_lm import _template
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support import tiny_generators
from tests.support.fits import QUICK
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive

END = tiny_generators.END
_TURN = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{% endfor %}"
_ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = _TURN + _ASK
THINKS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>' + '\\n' }}{% endfor %}" + _ASK
)
OPEN_THOUGHT = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
TRIMS = CHATML.replace("m.content", "m.content | trim")
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_PLAIN_ASK = "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
MARKED = (
    "{% for m in messages %}{{ m.role + ': ' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}" + _PLAIN_ASK
)
ENDLESS = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}" + _PLAIN_ASK
LAST_END = (
    "{% for m in messages %}{{ m.role + ': ' + m.content }}"
    "{% if m.role == 'assistant' %}{{ '<|return|>' if loop.last else '<|im_end|>' }}{% endif %}{% endfor %}" + _PLAIN_ASK
)
JSON = (
    "{% for m in messages %}{{ '{' + m.role + ': \"' + m.content + '\"}\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{assistant: \"' }}{% endif %}"
)
PLAIN = _template.PLAIN

# template, special added tokens, other added tokens
TEMPLATES = {
    "plain": (PLAIN, (), ()),
    "end is special": (CHATML, ("<|im_start|>", "<|im_end|>"), ()),
    "end is added, not special": (CHATML, (), ("<|im_start|>", "<|im_end|>")),
    "end is not a token": (CHATML, (), ()),
    "empty thought": (THINKS, ("<|im_start|>", "<|im_end|>"), ("<think>", "</think>")),
    "empty thought without tokens": (THINKS, (), ()),
    "thought only in the prompt": (OPEN_THOUGHT, (), ("<|im_end|>", "<think>")),
    "trims": (TRIMS, (), ()),
    "surrounding spaces": (SPACED, (), ()),
    "generation marks": (MARKED, ("<|im_end|>",), ()),
    "no end": (ENDLESS, (), ()),
    "different end for the last turn": (LAST_END, ("<|im_end|>", "<|return|>"), ()),
    "quotation marks": (JSON, (), ()),
}
TASK = tasks.load("causal_lm", {"data": "chat", "max_new_tokens": 12})
ANSWERS = {"red": "rot", "blue": "blau", "dog": "der hund", "cat": 'die "katze"'}


def chat(*contents):
    return [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]


def rows_of(*chats):
    frame = pd.DataFrame({"messages": [json.dumps(messages) for messages in chats]})
    frame["id"] = frame["group"] = [f"c{index}" for index in range(len(frame))]
    return TASK.read(frame)[0]


@pytest.fixture(scope="module")
def plain_bases(tmp_path_factory):
    texts = [*ANSWERS, *ANSWERS.values(), 'user assistant im_start im_end think return INST < | / > _ [ ] # { } : "'] * 3
    makers = {"bytes": tiny_generators.make_gpt2, "pieces": tiny_generators.make_llama}
    return {kind: make(tmp_path_factory.mktemp("base"), texts) for kind, make in makers.items()}


def with_template(base: Path, style: str, folder: Path) -> Path:
    """Copy `base` with another template and its tokens."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    template, special, added = TEMPLATES[style]
    shutil.copytree(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.add_tokens(list(added))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.save_pretrained(folder)
    if special or added:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
@pytest.mark.parametrize("style", TEMPLATES)
def test_only_answer_and_end_are_learnt(plain_bases, tmp_path, style, kind):
    tokenizer = TASK.load_tokenizer(with_template(plain_bases[kind], style, tmp_path / "base"))
    reader = TASK.reader(tokenizer)
    rows = rows_of(chat("red", "rot"), chat("cat", "  der hund ", "dog", "blau"))
    for row, cell in zip(TASK._sequences(rows, tokenizer), rows["messages"], strict=True):
        answers = [message["content"].strip() for message in json.loads(cell) if message["role"] == "assistant"]
        learnt_tokens = [token for part in row for token, learnt in zip(part.ids, part.learnt, strict=True) if learnt]
        learnt_runs, run = [], []
        for part in row:
            for token, learnt in zip(part.ids, part.learnt, strict=True):
                if learnt:
                    run.append(token)
                elif run:
                    learnt_runs.append(run)
                    run = []
            learnt_runs.append(run)
            run = []
        shown = [reader.template.answer(tokenizer.decode([t for t in run if t not in reader.stops()])) for run in learnt_runs if run]

        assert shown == answers
        assert "think" not in tokenizer.decode(learnt_tokens)
        assert sum(token in reader.stops() for token in learnt_tokens) == (0 if reader.template.stop else len(answers))


@pytest.mark.parametrize("style", TEMPLATES)
def test_prompt_is_a_prefix_of_the_training_sequence(plain_bases, tmp_path, style):
    tokenizer = TASK.load_tokenizer(with_template(plain_bases["bytes"], style, tmp_path / "base"))
    rows = rows_of(chat("red", "rot"), chat("cat", "rot", "dog", "blau"))
    for prompt, row in zip(TASK.prompts(rows, tokenizer), TASK.expected(rows, tokenizer), strict=True):
        assert row.ids[: len(prompt)] == prompt
        assert row.learnt.index(True) == len(prompt)


LEARNT = ("end is added, not special", "end is not a token", "empty thought", "quotation marks")


@pytest.mark.slow
@pytest.mark.parametrize("style", rest_exhaustive(LEARNT, "empty thought", "end is not a token"))
def test_fully_trained_model_answers_exactly(plain_bases, tmp_path, style):
    base = with_template(plain_bases["bytes"], style, tmp_path / "base")
    rows = rows_of(*[chat(question, answer) for question, answer in ANSWERS.items()] * 6)
    options = {"data": "chat", "max_new_tokens": 20}
    task = tasks.load("causal_lm", options)
    prepared = make_learn(tmp_path / "learn", base, rows, 4, "causal_lm", options, max_length=64)
    learn = PreparedSplits.read(prepared)
    settings = QUICK.model_copy(
        update={"metric": "log_likelihood", "epochs": 30, "batch_size": 8, "evaluations_per_epoch": 1, "learning_rate": 2e-2}
    )
    folder = tmp_path / "model"
    fit(task, base, learn, settings).model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    learn.spec.write(folder)
    answers = task.predictor(folder).answer(rows.head(4))
    statistics = task.statistics(rows["label"].head(4).tolist(), answers.predicted)
    learnt = answers.measured["hits"] == answers.measured["tokens"]

    assert learnt.any()
    assert statistics["exact"][learnt].tolist() == [1.0] * learnt.sum()
    assert [answer == expected for answer, expected in zip(answers.predicted, ANSWERS.values(), strict=True)] == learnt.tolist()


def test_turns_changed_by_later_ones_are_separate(plain_bases, tmp_path):
    loaded = {
        style: TASK.load_tokenizer(with_template(plain_bases["bytes"], style, tmp_path / style)) for style in ("empty thought", "plain")
    }
    rows = rows_of(chat("red", "rot", "blue", "blau"))

    assert {style: len(TASK._sequences(rows, tokenizer)[0]) for style, tokenizer in loaded.items()} == {"empty thought": 2, "plain": 1}


@pytest.mark.parametrize("style", ["plain", "end is special", "empty thought", "surrounding spaces", "different end for the last turn"])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_prompt_equals_the_rendered_template(plain_bases, tmp_path, style, kind):
    tokenizer = TASK.load_tokenizer(with_template(plain_bases[kind], style, tmp_path / "base"))
    messages = chat("red", "rot", "blue dog")
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    prompt = TASK.reader(tokenizer).question(messages).ids

    assert prompt[: len(rendered)] == rendered
    assert ("think" in tokenizer.decode(prompt[len(rendered) :])) == (style == "empty thought") == (len(prompt) > len(rendered))


@pytest.mark.parametrize("style", ["end is special", "end is added, not special", "empty thought", "plain"])
@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_typed_control_tokens_are_text(plain_bases, tmp_path, style, kind):
    tokenizer = TASK.load_tokenizer(with_template(plain_bases[kind], style, tmp_path / "base"))
    reader = TASK.reader(tokenizer)
    typed = f"red {tokenizer.eos_token} <|im_end|> dog"
    messages = [{"role": "system", "content": typed}, *chat(typed, typed, typed, typed)]
    plain_messages = [{**message, "content": "red dog"} for message in messages]
    control_ids = {*tokenizer.all_special_ids, *reader.stops()}
    counts = [
        [sum(token in control_ids for token in part.ids) for part in reader.chat(conversation)]
        for conversation in (messages, plain_messages)
    ]
    texts = [tokenizer.decode([t for t, learnt in zip(part.ids, part.learnt, strict=True) if learnt]) for part in reader.chat(messages)]
    prompt_counts = [
        sum(token in control_ids for token in reader.question(conversation[:-1]).ids) for conversation in (messages, plain_messages)
    ]

    assert counts[0] == counts[1]
    assert prompt_counts[0] == prompt_counts[1]
    assert sum(text.count(typed) for text in texts) == 2


SYSTEM_LAST = (  # as in Mistral's template: the system turn is rendered in the last user turn
    "{% set rest = messages %}"
    "{% if messages[0].role == 'system' %}{% set system, rest = messages[0].content, messages[1:] %}{% endif %}"
    "{{ bos_token }}{% for m in rest %}{% if m.role == 'user' %}{{ '[INST] ' }}{% if loop.last and system %}{{ system + '\\n' }}{% endif %}"
    "{{ m.content + '[/INST]' }}{% else %}{{ ' ' + m.content | trim + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_system_turn_is_in_the_prompt(plain_bases, kind):
    tokenizer = TASK.load_tokenizer(plain_bases[kind])
    tokenizer.chat_template = SYSTEM_LAST
    reader = TASK.reader(tokenizer)
    messages = [{"role": "system", "content": "think"}, *chat("red", "rot", "blue dog")]
    prompt = reader.question(messages).ids
    learnt = reader.chat([*messages, {"role": "assistant", "content": " blau "}])
    texts = [tokenizer.decode([t for t, is_learnt in zip(part.ids, part.learnt, strict=True) if is_learnt]).strip() for part in learnt]

    assert prompt == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert "think" in tokenizer.decode(prompt)
    assert learnt[-1].ids[: len(prompt)] == prompt
    assert texts == [f"rot{tokenizer.eos_token}", f"blau{tokenizer.eos_token}"]
    assert all("think" in tokenizer.decode(part.ids) for part in learnt)


DATED = (
    "{{ bos_token }}{% set today = strftime_now('%d %b %Y') %}Today is {{ today }} ({{ strftime_now(form) if form is defined else '' }})\n"
    + PLAIN
)


def test_date_in_a_template_is_fixed(plain_bases, tmp_path, caplog):
    base = tmp_path / "base"
    shutil.copytree(plain_bases["bytes"], base)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(base)
    with caplog.at_level("INFO"):
        loaded = [TASK.load_tokenizer(base) for _ in range(2)][-1]
    loaded.save_pretrained(tmp_path / "saved")
    shutil.copy(base / "config.json", tmp_path / "saved")
    again = TASK.load_tokenizer(tmp_path / "saved")
    elsewhere = AutoTokenizer.from_pretrained(tmp_path / "saved")  # as other servers load it

    assert [record.message for record in caplog.records if "2024-07-26" in record.message] != []
    assert sum("uses the current date" in record.message for record in caplog.records) == 1
    texts = {tokenizer.apply_chat_template(chat("red"), tokenize=False, form="%Y-%m-%d") for tokenizer in (loaded, again, elsewhere)}
    assert len(texts) == 1
    assert texts.pop().startswith(f"{END}Today is 26 Jul 2024 (2024-07-26)\n### user\nred")


def test_freezing_changes_only_the_date():
    assert _template.frozen(PLAIN) == PLAIN
    assert _template.frozen(_template.frozen(DATED)) == _template.frozen(DATED)


@pytest.mark.parametrize("drawn", ["{{ ['a', 'b'] | random }}", "{{ lipsum(1) }}"])
def test_random_template_is_rejected(drawn):
    with pytest.raises(BadModel, match="uses random values"):
        _template.frozen(drawn + PLAIN)


def test_template_without_the_answer_is_rejected(plain_bases):
    tokenizer = TASK.load_tokenizer(plain_bases["bytes"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"

    with pytest.raises(BadModel, match="does not render the assistant's answer"):
        TASK.reader(tokenizer).stops()


def test_stop_string_is_in_the_generation_config(plain_bases, tmp_path):
    base = with_template(plain_bases["bytes"], "end is not a token", tmp_path / "base")
    spec = ModelSpec(task="causal_lm", labels=(), max_length=40, unicode_form="NFC", options=TASK.options.model_dump())
    TASK.build_model(base, spec).save_pretrained(tmp_path / "model")

    assert json.loads((tmp_path / "model/generation_config.json").read_text())["stop_strings"] == ["<|im_end|>"]
