"""Masked language modelling: masked words, encoding, model, predictions and baselines."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForMaskedLM

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadModel
from components.model import tasks
from components.model.support import pretrained
from components.model.tasks.masked_lm import tokens, unigram, words
from tests.support.encoders import FAMILIES, make_encoder
from tests.support.labelled import predict_baselines, statistics_of
from tests.support.learn import spec_of

task = tasks.load("masked_lm")


def spec(max_length=16, **options):
    return ModelSpec(task="masked_lm", labels=(), max_length=max_length, unicode_form="NFC", options=options)


def texts_of(*texts):
    rows, _ = task.read(pd.DataFrame({"id": [f"{index:03d}" for index in range(len(texts))], "group": "g", "text": list(texts)}))
    return rows


def encoded(rows, tokenizer, **settings):
    table = tasks.load("masked_lm", settings).encode(rows, tokenizer, spec())
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]


def save(model, base, folder, **settings):
    model.save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    spec(**settings).write(folder)
    return folder


@pytest.fixture(scope="module")
def rows(tickets):
    return task.read(tickets.drop(columns="label"))[0]


@pytest.fixture(scope="module")
def base(tickets, tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("bert"), "bert", tickets["text"].tolist())


@pytest.fixture(scope="module")
def tokenizer(base):
    return task.load_tokenizer(base)


@pytest.fixture(scope="module")
def saved(base, tmp_path_factory):
    torch.manual_seed(3)
    return save(task.build_model(base, spec()), base, tmp_path_factory.mktemp("model"))


# Masked words of a test


def test_masked_words_depend_only_on_the_text(tickets):
    spans = [words.masked(text) for text in tickets["text"]]

    assert spans == [words.masked(text) for text in tickets["text"]]
    assert min(map(len, spans)) == 1
    long = " ".join(f"w{number}" for number in range(5_000))
    assert len(words.masked(long)) == pytest.approx(5_000 * words.SHARE, rel=0.1)


def test_url_is_masked_only_if_alone():
    address = "https://example.org/" + "a" * 40

    assert {words.expected(f"{address} {word}") for word in ("one", "two", "three")} == {"one", "two", "three"}
    assert words.expected(address) == address


def test_scripts_without_spaces_are_masked_per_character():
    text = "東京都は日本の首都である。人口は約千四百万人で、世界最大の都市圏の一つである。"

    assert all(stop - start == 1 for start, stop in words.masked(text))
    assert len(words.spans("wifi 東京")) == 3


def test_text_with_a_mask_token_is_invalid():
    rows, faults = task.read(pd.DataFrame({"text": ["my [MASK] is slow", "all well", "a <mask>"]}))

    assert faults == {0: "text contains [MASK]", 2: "text contains <mask>"}
    assert rows["label"].tolist()[1] in {"all", "well"}


# Encoding and masking


def test_units_are_tokens_or_words(tokenizer):
    rows = texts_of("my screenx \u6771 is slow")
    by_token, by_word = (encoded(rows, tokenizer, whole_word=whole)[0]["units"] for whole in (False, True))

    assert tokenizer.convert_ids_to_tokens(encoded(rows, tokenizer)[0]["input_ids"])[2:4] == ["screen", "##x"]
    assert by_token == [-1, 0, 1, 2, -1, 4, 5, -1]
    assert by_word == [-1, 0, 1, 1, -1, 3, 4, -1]


def test_rows_are_truncated_or_joined_to_blocks(rows, tokenizer):
    lines, blocks = (encoded(rows, tokenizer, line_by_line=line_by_line) for line_by_line in (True, False))
    bodies = [ids for ids, _ in tokens.pieces(rows["text"].tolist(), tokenizer)]
    end = tokenizer.sep_token_id

    assert [row["input_ids"] for row in lines] == [[tokenizer.cls_token_id, *ids, end] for ids in bodies]
    assert list(itertools.chain.from_iterable(row["input_ids"][1:-1] for row in blocks)) == [
        token for ids in bodies for token in [*ids, end]
    ]
    assert {row["length"] for row in blocks[:-1]} == {16}
    assert max(row["length"] for row in encoded(texts_of("slow " * 90), tokenizer)) == 16
    for row in blocks:
        assert [unit == -1 for unit in row["units"]] == [token in (end, tokenizer.cls_token_id) for token in row["input_ids"]]


def test_texts_of_unknown_tokens_are_skipped(tokenizer):
    assert len(encoded(texts_of("☃", "wifi"), tokenizer)) == 1
    with pytest.raises(BadData, match="knows no token of the 1 texts"):
        encoded(texts_of("☃"), tokenizer)


def test_masks_are_fixed_in_evaluation_and_drawn_per_epoch(rows, tokenizer):
    batch = encoded(rows.head(40), tokenizer)
    fixed = task.collator(tokenizer, spec())
    drawing = fixed.drawing
    alone = torch.cat([torch.nn.functional.pad(fixed([row])["labels"], (0, 10 - row["length"]), value=-100) for row in batch])
    batches = []
    for epoch in (1, 2, 1):
        drawing.set_draw(epoch)
        batches.append(drawing(batch))

    assert torch.equal(fixed(batch)["labels"], alone)
    assert torch.equal(fixed(batch[::-1])["input_ids"].flip(0), fixed(batch)["input_ids"])
    assert all(torch.equal(batches[0][name], batches[2][name]) for name in batches[0])
    assert not torch.equal(batches[0]["labels"], batches[1]["labels"])
    assert not torch.equal(batches[0]["labels"], fixed(batch)["labels"])


def test_mask_shares_equal_bert(tokenizer):
    row = encoded(texts_of(" ".join(["wifi is slow today again"] * 2)), tokenizer)[0]
    drawing = task.collator(tokenizer, spec()).drawing
    masked = []
    for epoch in range(1_500):
        drawing.set_draw(epoch)
        batch = drawing([row])
        is_masked = batch["labels"][0] != -100
        assert torch.equal(batch["labels"][0][is_masked], torch.tensor(row["input_ids"])[is_masked])
        masked += [
            (replaced == tokenizer.mask_token_id, replaced == original)
            for replaced, original in zip(batch["input_ids"][0][is_masked].tolist(), batch["labels"][0][is_masked].tolist(), strict=True)
        ]

    assert len(masked) / 15_000 == pytest.approx(0.15 + 0.1 * 0.85**10, abs=0.01)
    assert np.mean([mask for mask, _ in masked]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([kept for _, kept in masked]) == pytest.approx(0.1, abs=0.03)


def test_whole_words_are_masked_together(tokenizer):
    row = encoded(texts_of("screenxyz wifiabc slow"), tokenizer, whole_word=True)[0]
    drawing = tasks.load("masked_lm", {"whole_word": True}).collator(tokenizer, spec()).drawing
    for epoch in range(50):
        drawing.set_draw(epoch)
        is_masked = (drawing([row])["labels"][0] != -100).tolist()
        by_unit = {
            unit: {chosen for chosen, other in zip(is_masked, row["units"], strict=True) if other == unit} for unit in set(row["units"])
        }
        assert all(len(chosen) == 1 for chosen in by_unit.values())
        assert by_unit[-1] == {False}


# The model


@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_head_equals_full_head(family, tickets, rows, tmp_path):
    folder = make_encoder(tmp_path / "base", family, tickets["text"].tolist())
    tokenizer = task.load_tokenizer(folder)
    model = task.build_model(folder, spec()).eval()
    batch = task.collator(tokenizer, spec())(encoded(rows.head(8), tokenizer))
    save(model, folder, tmp_path / "out")
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        sparse, dense = model(**batch), plain(**batch)

    assert type(model).__name__ == type(plain).__name__
    assert sparse.logits.shape[:2] == (1, int((batch["labels"] != -100).sum()))
    assert torch.allclose(sparse.loss, dense.loss, atol=1e-6)
    condensed = task.condense(sparse.logits, batch["labels"])
    assert torch.allclose(condensed, task.condense(dense.logits, batch["labels"]), atol=1e-5)
    assert -condensed[:, 0].sum() / condensed[:, 2].sum() == pytest.approx(float(dense.loss), abs=1e-5)


def test_validation_averages_over_tokens():
    metrics = task.validate(np.array([[-2.0, 1, 1], [-10.0, 0, 3]]), np.zeros((2, 4)), spec())

    assert metrics == pytest.approx({"log_likelihood": -3.0, "masked_accuracy": 0.25})


def test_tokenizer_without_mask_token_is_rejected(base, tmp_path):
    tokenizer = pretrained.load_tokenizer(base)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())

    with pytest.raises(BadModel, match="no mask token"):
        task.load_tokenizer(tmp_path)


# Use as a base model


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_model_is_a_base_for_a_classifier(family, tickets, tmp_path):
    folder = make_encoder(tmp_path / "base", family, tickets["text"].tolist())
    model = task.build_model(folder, spec())
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.01)
    out = save(model, folder, tmp_path / "out")
    classifier = tasks.load("text_classification")
    loaded = classifier.build_model(out, spec_of("a", "b")).state_dict()
    prefix = f"{model.base_model_prefix}."
    encoder = {name: weights for name, weights in model.state_dict().items() if name.startswith(prefix)}

    assert len(encoder) > 20
    assert all(torch.equal(loaded[name], weights) for name, weights in encoder.items())
    assert classifier.load_tokenizer(out)("wifi") == classifier.load_tokenizer(folder)("wifi")
    assert task.build_model(out, spec()).state_dict().keys() == model.state_dict().keys()


# Predictions


def test_word_likelihood_sums_over_masked_pieces(saved):
    text = "my screenxy is slow"
    text = next(f"{text} {number}" for number in range(100) if words.expected(f"{text} {number}") == "screenxy")
    answered = task.predictor(saved).answer(texts_of(text))
    tokenizer, plain = task.load_tokenizer(saved), AutoModelForMaskedLM.from_pretrained(saved).eval()
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    pieces = ids[0, 2:5].clone()
    ids[0, 2:5] = tokenizer.mask_token_id
    with torch.no_grad():
        log_probabilities = torch.log_softmax(plain(input_ids=ids).logits[0, 2:5], dim=-1)

    assert tokenizer.convert_ids_to_tokens(pieces) == ["screen", "##x", "##y"]
    assert answered.measured["log_likelihood"][0] == pytest.approx(float(log_probabilities.gather(1, pieces[:, None]).sum()), abs=1e-4)
    assert answered.predicted == ["".join(tokenizer.decode(log_probabilities.argmax(dim=-1)).split())]


def test_answers_do_not_depend_on_batching(saved, rows):
    predictor = task.predictor(saved)
    texts = pd.concat([rows.head(30), texts_of("wifi", "slow " * 40, "x")], ignore_index=True)
    together, alone = predictor.answer(texts, batch_size=32), predictor.answer(texts.iloc[::-1].reset_index(drop=True), batch_size=1)

    assert together.predicted == alone.predicted[::-1]
    np.testing.assert_allclose(together.measured["log_likelihood"], alone.measured["log_likelihood"][::-1], atol=1e-4)


def test_every_word_of_a_long_text_is_answered(saved):
    text = " ".join(f"word{number % 10}" for number in range(80))
    row = texts_of(text)
    answered = task.predictor(saved).answer(row)

    assert len(answered.predicted[0].split()) == len(row["label"][0].split()) > 3
    assert task.statistics(row["label"], row["label"])["right"].tolist() == [len(words.masked(text))]


def test_parts_end_at_words_if_possible():
    assert list(tokens.windows([0, 0, 1, 1, 2, 3], 3)) == [(0, 2), (2, 5), (5, 6)]
    assert list(tokens.windows([0, 0, 0, 0], 3)) == [(0, 3), (3, 4)]
    assert list(tokens.windows([], 3)) == []


def test_serving_fills_each_mask(saved, rows):
    predictor = task.predictor(saved)
    answers = predictor.answer(pd.DataFrame({"text": ["my [MASK] is [MASK] today", rows["text"][0]]}))

    assert len(answers.predicted[0].split()) == 2
    assert answers.predicted[1] == predictor.answer(rows.head(1)).predicted[0]
    assert not answers.measured
    assert predictor.answer(rows.head(0)).predicted == []


def test_word_without_a_token_counts_at_chance(saved):
    answered = task.predictor(saved).answer(texts_of("\u200b"))

    assert answered.predicted == [words.EMPTY]
    assert answered.measured["log_likelihood"].tolist() == pytest.approx([-math.log(len(task.load_tokenizer(saved)))])


# Metrics and baselines


def test_metrics_are_over_words(rows):
    right = task.statistics(["a b", "c"], ["a x", "c"])
    statistics = {**right, "log_likelihood": np.array([-4.0, -0.5])}

    values = {name: metric.of(statistics) for name, metric in task.test_metrics.items()}

    assert values == pytest.approx({"log_likelihood": -1.5, "accuracy": 2 / 3})


def test_unigram_equals_manual_count(tokenizer):
    text = next(f"refund invoice {number}" for number in range(100) if words.expected(f"refund invoice {number}") == "refund")
    train = ["invoice refund", "refund refund cable"]
    pieces = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("invoice", "refund", "cable")}
    all_tokens = [token for row in train for word in row.split() for token in pieces[word]]
    answered = unigram(train, tokenizer)(pd.DataFrame({"text": [text, "\u200b"]}))

    assert answered.predicted == ["refund", "refund"]
    by_hand = sum(math.log((all_tokens.count(token) + 1) / (len(all_tokens) + len(tokenizer))) for token in pieces["refund"])
    assert answered.measured["log_likelihood"].tolist() == pytest.approx([by_hand, -math.log(len(tokenizer))])


def test_baselines_match_labels_and_are_reproducible(base, rows):
    train, test = rows.iloc[60:], rows.iloc[:60]
    state = torch.random.get_rng_state()
    outputs, again = (predict_baselines(task, train, test, spec(), base) for _ in range(2))

    assert tuple(outputs) == task.baselines
    assert torch.equal(state, torch.random.get_rng_state())
    assert outputs["base"].predicted == again["base"].predicted
    assert all(
        len(answer.split()) == len(label.split())
        for output in outputs.values()
        for answer, label in zip(output.predicted, test["label"], strict=True)
    )
    assert outputs["unigram"].measured["log_likelihood"].mean() > outputs["base"].measured["log_likelihood"].mean()  # its head is random


def test_report_has_perplexities_and_words(saved, rows):
    test = rows.head(40)
    predictions = Predictions.from_output(test, task.predictor(saved).answer(test))
    perplexity, by_word, least_likely = task.tables(test, predictions)

    mean = task.test_metrics["log_likelihood"].of(statistics_of(task, predictions))
    assert perplexity.rows[0] == ("all", sum(len(label.split()) for label in test["label"]), round(math.exp(-mean), 2))
    assert sum(row[1] for row in by_word.rows) <= perplexity.rows[0][1]
    assert "____" in least_likely.rows[0][0]
    assert set(task.slices(test)["words"]) == {"5–16 words"}
