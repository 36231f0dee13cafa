"""Question answering with a two-layer model: pieces, spans, thresholds and training methods."""

import json
import random
import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from components.artifacts.rows import write_rows
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, BadParams
from components.model import tasks
from components.model.tasks.question_answering.answers import Span, texts_of
from components.model.tasks.question_answering.features import best_span, features
from components.training.train import fit_task_options
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import fit
from tests.support.fits import QUICK, cut_and_resumed, keep_in, same, weights
from tests.support.tickets import FILLER, TOPICS

OPTIONS = {"unanswerable": True, "stride": 6, "max_answer_tokens": 4}
task = tasks.load("question_answering", OPTIONS)
SETTINGS = QUICK.model_copy(update={"metric": "span_f1"})
METHODS = {"full": {}, "freeze": {"method": "freeze", "frozen_layers": 1}, "lora": {"method": "lora", "lora_targets": "all-linear"}}


def spec_of(max_length=24, **options):
    settings = tasks.load("question_answering", OPTIONS | options).options.model_dump()
    return ModelSpec(task="question_answering", labels=(), max_length=max_length, unicode_form="NFC", options=settings)


@pytest.fixture(scope="module")
def questions():
    """Return 240 contexts of filler words; four in five contain one or two topic words, the answer."""
    rng, rows = random.Random(2), []
    for number in range(240):
        words, topic = rng.choices(FILLER, k=rng.randint(6, 24)), rng.choice(sorted(TOPICS))
        answer = rng.sample(TOPICS[topic], rng.randint(1, 2)) if number % 5 else []
        position = rng.randint(0, len(words))
        text = " ".join(answer)
        context = " ".join([*words[:position], *answer, *words[position:]])
        start = len(" ".join(words[:position])) + (position > 0)
        cell = {"text": [text] if answer else [], "answer_start": [start] if answer else []}
        rows.append(
            {
                "id": f"q{number:03d}",
                "group": f"g{number}",
                "question": "help with the case",
                "context": context,
                "answers": json.dumps(cell),
            }
        )
    read, faults = task.read(pd.DataFrame(rows))
    assert not faults
    return read


@pytest.fixture(scope="module")
def learn_folder(tiny_base, questions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "learn"
    (folder / "encoded").mkdir(parents=True)
    for split, part in (("validation", questions.iloc[:60]), ("train", questions.iloc[60:])):
        write_rows(part, folder / f"{split}.parquet")
        table = task.encode(part, task.load_tokenizer(tiny_base), spec_of())
        with pa.OSFile(str(folder / "encoded" / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    spec_of().write(folder)
    return folder


@pytest.fixture(scope="module")
def learn(learn_folder):
    return PreparedSplits.read(learn_folder)


@pytest.fixture(scope="module")
def trained(tiny_base, learn):
    """Return the model after eight epochs."""
    return fit(task, tiny_base, learn, SETTINGS.model_copy(update={"epochs": 8})).model


def saved(model, base, folder, spec=None):
    model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    (spec or spec_of()).write(folder)
    return folder


@pytest.fixture(scope="module")
def model_folder(trained, tiny_base, tmp_path_factory):
    return saved(trained, tiny_base, tmp_path_factory.mktemp("model"))


def test_long_context_becomes_overlapping_pieces(tiny_base):
    words = (FILLER * 3)[:40]
    context, tokenizer = " ".join(words), task.load_tokenizer(tiny_base)
    pieces = features(["help with the case"], [context], tokenizer, 24, 6)
    texts = [[context[a:b] for a, b in piece.offsets] for piece in pieces]

    assert [len(piece) for piece in pieces] == [24, 24, 24, len(pieces[-1])]
    assert all(piece_words[-6:] == next_words[:6] for piece_words, next_words in pairwise(texts))
    assert [*texts[0], *(word for piece in texts[1:] for word in piece[6:])] == words
    assert all(piece.inputs["input_ids"][1:5] == pieces[0].inputs["input_ids"][1:5] for piece in pieces)
    assert [piece.no_answer for piece in pieces] == [0] * 4


def test_labels_are_the_answer_tokens(tiny_base, questions):
    tokenizer = task.load_tokenizer(tiny_base)
    table = task.encode(questions, tokenizer, spec_of())
    pieces = features(questions["question"].tolist(), questions["context"].tolist(), tokenizer, 24, 6)
    located, rows = 0, table.to_pylist()

    assert "attention_mask" not in table.column_names
    assert len(rows) == len(pieces) > len(questions)
    for piece, row in zip(pieces, rows, strict=True):
        texts = texts_of(questions["label"].iloc[piece.row])
        ids = row["input_ids"][row["start_positions"] : row["end_positions"] + 1]
        if row["start_positions"]:
            located += 1
            assert [tokenizer.decode(ids)] == texts
        else:
            assert row["end_positions"] == 0
            assert not texts or texts[0] not in tokenizer.decode(row["input_ids"][piece.first : piece.last])
    assert located >= 192


def test_partial_answer_is_not_located(tiny_base):
    words = (FILLER * 3)[:40]
    context = " ".join(words)
    pieces = features(["help"], [context], task.load_tokenizer(tiny_base), 24, 6)
    locations = [piece.locate(Span(context[:1], 0)) for piece in pieces]

    assert locations[0] == (pieces[0].first, pieces[0].first)
    assert locations[1:] == [None] * (len(pieces) - 1)
    assert all(piece.locate(Span(context, 0)) is None for piece in pieces)


def test_characters_without_tokens_keep_the_answer(tiny_base):
    context = "\u200b the \u200b router"
    piece = features(["help"], [context], task.load_tokenizer(tiny_base), 24, 6)[0]

    assert piece.locate(Span("\u200b the", 0)) == (piece.first, piece.first)
    assert piece.locate(Span("\u200b", 0)) is None


@pytest.mark.slow
def test_long_question_is_truncated(tiny_base, model_folder):
    question = " ".join(FILLER * 20)
    context = " ".join(FILLER * 4)
    pieces = features([question], [context], task.load_tokenizer(tiny_base), 24, 1_000)
    covered = {tuple(pair) for piece in pieces for pair in piece.offsets.tolist()}

    assert all(len(piece) <= 24 and piece.first == 12 for piece in pieces)
    assert len(covered) == len(FILLER) * 4
    assert len(task.predictor(model_folder).answer(pd.DataFrame({"question": [question], "context": [context]})).predicted) == 1


def test_too_small_max_length_is_rejected(tiny_base):
    with pytest.raises(BadParams, match="max_length is 6, expected at least 7 for a question with its context"):
        features(["help"], ["the case"], task.load_tokenizer(tiny_base), 6, 2)


def test_split_and_long_answers_are_logged(tiny_base, caplog):
    words = (FILLER * 3)[:40]
    long = {"text": [" ".join(words)], "answer_start": [0]}
    five = {"text": [" ".join(words[:5])], "answer_start": [0]}
    rows = pd.DataFrame(
        {
            "id": ["a", "b"],
            "group": ["a", "b"],
            "question": "help",
            "context": " ".join(words),
            "answers": [json.dumps(long), json.dumps(five)],
        }
    )
    task.encode(task.read(rows)[0], task.load_tokenizer(tiny_base), spec_of())

    assert "no piece contains 1 of 2 answers completely" in caplog.text
    assert "1 of 2 answers are longer than task_options.max_answer_tokens" in caplog.text


def test_best_span_is_optimal():
    rng = np.random.default_rng(0)
    for tokens in (1, 2, 9, 30):
        start, end = rng.normal(size=(2, tokens))
        for max_tokens in (1, 4, 100):
            pairs = [(first, last) for first in range(tokens) for last in range(first, min(tokens, first + max_tokens))]
            expected = max(pairs, key=lambda pair: start[pair[0]] + end[pair[1]])
            assert best_span(start, end, max_tokens)[:2] == expected
    assert best_span(np.zeros(3), np.zeros(3), 2) == (0, 0, 0.0)
    assert best_span(np.zeros(0), np.zeros(0), 2)[2] == -np.inf


def test_validation_compares_best_spans():
    rng = torch.Generator().manual_seed(0)
    start, end = torch.randn(5, 12, generator=rng), torch.randn(5, 12, generator=rng)
    condensed = task.condense((start, end), None).numpy()
    best_spans = [
        best_span(start_row.double().numpy(), end_row.double().numpy(), 4)[:2] for start_row, end_row in zip(start, end, strict=True)
    ]

    assert condensed.tolist() == [list(pair) for pair in best_spans]
    expected = np.array([[0, 0], [2, 5], [4, 4], [7, 9]])
    predicted = np.array([[0, 0], [4, 5], [5, 5], [6, 9]])
    assert task.validate(predicted, expected, spec_of()) == pytest.approx({"span_f1": (1 + 4 / 6 + 0 + 6 / 7) / 4, "span_accuracy": 1 / 4})


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", METHODS)
def test_every_method_learns_and_reloads(tiny_base, learn, questions, tmp_path, variant):
    keep = keep_in(tmp_path / "out")
    settings = SETTINGS.model_copy(update={"epochs": 8} | METHODS[variant])
    trained = fit(task, tiny_base, learn, settings, keep=keep)
    folder = saved(trained.model, tiny_base, tmp_path / "model")
    again = task.build_model(folder, learn.spec)
    batch = task.collator(task.load_tokenizer(folder), learn.spec)([learn.validation[index] for index in range(8)])
    losses = [point["loss"] for point in map(json.loads, keep.history.read_text().splitlines()) if "loss" in point]

    assert np.mean(losses[-4:]) < 0.7 * losses[0]
    assert sorted(path.suffix for path in folder.iterdir()) == [".json"] * 4 + [".safetensors"]
    with torch.no_grad():
        expected, reloaded = trained.model.eval()(**batch), again.eval()(**batch)
    assert torch.equal(expected.start_logits, reloaded.start_logits)
    assert torch.equal(expected.end_logits, reloaded.end_logits)
    rows = questions[["question", "context"]].iloc[:20]
    assert (
        task.predictor(folder).answer(rows).predicted == task.predictor(shutil.copytree(folder, tmp_path / "copy")).answer(rows).predicted
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", METHODS)
def test_resumed_run_equals_uninterrupted_run(tiny_base, learn, tmp_path, variant):
    expected, resumed = cut_and_resumed(task, tiny_base, learn, SETTINGS.model_copy(update=METHODS[variant]), tmp_path)

    assert same(weights(resumed.model), weights(expected.model))
    assert resumed.best_value == expected.best_value


@pytest.mark.parametrize(("field", "value"), [("label_smoothing", 0.1), ("r_drop", 1.0), ("calibration", "temperature")])
def test_unsupported_settings_are_rejected(tiny_base, learn, field, value):
    with pytest.raises(BadParams, match=rf"train\.{field} is set, and the task refuses it"):
        fit(task, tiny_base, learn, SETTINGS.model_copy(update={field: value}))


def test_answers_are_spans_of_the_context(model_folder, questions):
    contexts = ["  The   ROUTER,\u00a0is\n(broken) 😀 naïve  ", *questions["context"][:40]]
    rows = pd.DataFrame({"question": "help with the case", "context": contexts})
    predictor = task.predictor(model_folder)

    for context, span, answer in zip(contexts, predictor.spans(rows), predictor.answer(rows).predicted, strict=True):
        assert context[span.start : span.end] == span.text == span.text.strip() != ""
        assert json.loads(answer) in ([span.text], [])


def test_model_learns_answer_positions(model_folder, learn_folder, questions):
    spec = fit_task_options(model_folder, task, spec_of(), learn_folder)
    test = questions.iloc[:60]
    statistics = task.statistics(test["label"].tolist(), task.predictor(model_folder).answer(test).predicted)

    assert ModelSpec.read(model_folder) == spec
    assert task.test_metrics["f1"].of(statistics) > 0.8
    assert task.test_metrics["no_answer_accuracy"].of(statistics) > 0.6


def test_answers_do_not_depend_on_batching(model_folder, questions):
    rows, predictor = questions.iloc[:40], task.predictor(model_folder)
    alone = [predictor.spans(rows.iloc[[index]])[0] for index in range(40)]
    for batched in (predictor.spans(rows), predictor.spans(rows.iloc[::-1], batch_size=7)[::-1]):
        for span, batched_span in zip(alone, batched, strict=True):
            assert (span.text, span.start) == (batched_span.text, batched_span.start)
            assert (span.score, span.margin) == pytest.approx((batched_span.score, batched_span.margin), abs=1e-4)


def test_threshold_decides_no_answer(model_folder, questions, tmp_path):
    rows = questions.iloc[:30]
    for threshold, share in ((-1e9, 1.0), (1e9, 0.0)):
        folder = shutil.copytree(model_folder, tmp_path / f"at{threshold}")
        spec_of(no_answer_threshold=threshold).write(folder)
        assert np.mean([text == "[]" for text in task.predictor(folder).answer(rows).predicted]) == share
    spec_of(unanswerable=False, no_answer_threshold=-1e9).write(folder)
    assert "[]" not in task.predictor(folder).answer(rows).predicted


def test_threshold_is_fitted_only_if_needed(model_folder, learn_folder, questions):
    spec = fit_task_options(model_folder, task, spec_of(), learn_folder)

    assert isinstance(spec.options["no_answer_threshold"], float)
    assert spec.options == spec_of(no_answer_threshold=spec.options["no_answer_threshold"]).options
    for options in ({"unanswerable": False}, {"no_answer_threshold": 1.5}):
        fixed = tasks.load("question_answering", OPTIONS | options)
        assert fit_task_options(model_folder, fixed, spec, learn_folder) is spec
    assert task.calibrate(model_folder, questions.head(0)) == {"no_answer_threshold": 0.0}


def test_blank_rows_have_no_answer(model_folder):
    rows = pd.DataFrame({"question": ["", "help", " "], "context": ["the router", "", "\u200b"]})

    assert [json.loads(text) for text in task.predictor(model_folder).answer(rows).predicted][1:] == [[], []]
    assert task.predictor(model_folder).answer(rows.head(0)).predicted == []


def test_tokenizer_without_offsets_is_rejected(tiny_base, monkeypatch):
    from transformers import BertTokenizer

    monkeypatch.setattr(BertTokenizer, "is_fast", False)
    with pytest.raises(BadModel, match="has no character offsets"):
        task.load_tokenizer(tiny_base)
