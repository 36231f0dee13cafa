"""Sentence embeddings: rows, losses, retrieval metrics and predictions."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadParams
from components.model import tasks
from components.model.tasks.contrastive import encoder, retrieval, search
from components.model.tasks.contrastive import rows as parsing
from tests.support.encoders import FAMILIES, make_encoder
from tests.support.labelled import CONTRASTIVE_FORMATS, contrastive_rows, predict_baselines, statistics_of


def spec(data="pairs", **options):
    full = tasks.load("contrastive", {"data": data, **options}).options.model_dump(mode="json")
    return ModelSpec(task="contrastive", labels=(), max_length=16, unicode_form="NFC", options=full)


@pytest.fixture(scope="module")
def base(tickets, tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("bert"), "bert", tickets["text"].tolist())


def save(base, folder, **options):
    task = tasks.load("contrastive", options)
    torch.manual_seed(0)
    task.build_model(base, spec(**options)).save_pretrained(folder)
    task.load_tokenizer(base).save_pretrained(folder)
    spec(**options).write(folder)
    return folder


# Rows


def test_each_data_format_has_columns_and_metrics():
    by_format = {kind: tasks.load("contrastive", {"data": kind}) for kind in CONTRASTIVE_FORMATS}

    assert by_format["triplets"].columns == ("anchor", "positive", "negative")
    assert set(by_format["scored"].test_metrics) == {"spearman"} == set(by_format["scored"].validation_metrics)
    assert list(by_format["texts"].test_metrics) == ["mrr", "recall_at_1", "recall_at_5", "recall_at_10", "ndcg_at_10"]
    with pytest.raises(BadParams, match=r"lowest.*must be below highest"):
        tasks.load("contrastive", {"data": "scored", "lowest": 1, "highest": 1})


@pytest.mark.parametrize(
    ("data", "row", "reason"),
    [
        ("pairs", {"anchor": "a", "positive": " a "}, "anchor and positive are the same text"),
        ("triplets", {"anchor": "a", "positive": "b", "negative": "b"}, "negative and positive are the same text"),
        ("triplets", {"anchor": "a", "positive": "b", "negative": "a"}, "negative and anchor are the same text"),
        ("scored", {"text_a": "a", "text_b": "b", "score": "high"}, "score is not a number"),
        ("scored", {"text_a": "a", "text_b": "b", "score": "nan"}, "score is not a number"),
        ("scored", {"text_a": "a", "text_b": "b", "score": "1.5"}, "score is not between 0 and 1"),
        ("texts", {"text": "alone"}, "text has one word, so it cannot be split into halves"),
    ],
)
def test_invalid_row_has_a_reason(data, row, reason):
    good = {name: f"{name} good" if name != "score" else "0.5" for name in row}
    read, faults = tasks.load("contrastive", {"data": data}).read(pd.DataFrame([good, row]))

    assert faults == {1: reason}
    assert read["text"][0] == next(iter(good.values()))


def test_text_and_label_contain_all_differences():
    triplets, scored = tasks.load("contrastive", {"data": "triplets"}), tasks.load("contrastive", {"data": "scored", "highest": 5})
    both, _ = triplets.read(pd.DataFrame({"anchor": ["a", "a"], "positive": ["b", "b"], "negative": ["c", "d"]}))
    pair, _ = scored.read(pd.DataFrame({"text_a": ["a", "a"], "text_b": ["b", "c"], "score": ["4", "4"]}))

    assert both["label"].tolist() == ["b (not: c)", "b (not: d)"]
    assert pair["label"].tolist() == ["4: b", "4: c"]


@pytest.mark.parametrize("data", CONTRASTIVE_FORMATS)
def test_encoding_contains_every_text(base, tickets, data):
    task = tasks.load("contrastive", {"data": data})
    rows, tokenizer = contrastive_rows(tickets, data, 5), task.load_tokenizer(base)
    table = task.encode(rows, tokenizer, spec(data))
    first = table["input_ids"][0].as_py()

    texts = (
        [rows["text"][0], *parsing.halves(rows["text"][0])]
        if data == "texts"
        else [rows[name][0] for name in task.columns[:3] if name != "score"]
    )
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in first] == texts
    assert table["length"][0].as_py() == max(map(len, first))
    assert len(table["labels"][0].as_py()) == {"pairs": 3, "triplets": 4, "scored": 1, "texts": 3}[data]
    assert task.lengths(rows, tokenizer)[0] == len(tokenizer(rows["text"][0])["input_ids"])
    assert task.encode(rows.head(0), tokenizer, spec(data)).num_rows == 0


# Losses


def brute(group, anchor, positive, negative=None):
    """Return the texts that are not negatives of each row, by definition."""
    count = len(group)
    texts = [*positive, *(negative or [])]
    excluded = np.zeros((count, len(texts)), dtype=bool)
    for row in range(count):
        related = {
            text
            for row_index in range(count)
            if group[row_index] == group[row] or anchor[row_index] == anchor[row]
            for text in (anchor[row_index], positive[row_index])
        }
        for index, text in enumerate(texts):
            excluded[row, index] = index % count != row and text in related
    return excluded


@pytest.mark.parametrize("negatives", [False, True])
def test_texts_of_same_group_or_anchor_are_not_negatives(negatives):
    rng = np.random.default_rng(0)
    total = 0
    for _ in range(200):
        keys = np.stack([rng.integers(0, 5, 8), rng.integers(10, 18, 8), *(rng.integers(14, 26, 8) for _ in range(1 + negatives))], axis=1)
        excluded = brute(*keys.T.tolist())
        assert (encoder.false_negatives(torch.from_numpy(keys)).numpy() == excluded).all()
        total += excluded.sum()
    assert total > 1_000


def unit(rows, seed):
    return torch.nn.functional.normalize(torch.randn(rows, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_loss_equals_manual_cross_entropy():
    anchors, positives = unit(5, 0), unit(5, 1)
    keys = torch.tensor([[1, 10, 20], [1, 11, 21], [2, 12, 22], [3, 13, 20], [4, 14, 24]])
    similarity = (anchors @ positives.T / 0.1).double().numpy()
    excluded = brute(*keys.T.tolist())
    by_hand = [
        -similarity[row, row] + math.log(sum(math.exp(similarity[row, column]) for column in range(5) if not excluded[row, column]))
        for row in range(5)
    ]

    assert np.argwhere(excluded).tolist() == [[0, 1], [0, 3], [1, 0], [1, 3], [3, 0]]  # 20 belongs to group 1 in every row
    assert float(encoder.in_batch(anchors, [positives], keys, 0.1)) == pytest.approx(np.mean(by_hand), abs=1e-5)


@pytest.fixture(scope="module")
def sentence():
    """Return sentence-transformers with its losses and evaluators."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sentence_transformers.sentence_transformer.evaluation
        import sentence_transformers.sentence_transformer.losses
    return sentence_transformers


def test_losses_equal_sentence_transformers(sentence):
    reference = sentence.sentence_transformer.losses
    anchors, positives, negatives = (unit(6, seed) for seed in range(3))
    keys_of_rows = torch.arange(24).reshape(4, 6).T
    scores = torch.tensor([0.1, 0.5, 0.5, 0.9, 0.0, 0.3])

    ranking = reference.MultipleNegativesRankingLoss(None, scale=20.0)
    for others, keys in (([positives], keys_of_rows[:, :3]), ([positives, negatives], keys_of_rows)):
        expected = ranking.compute_loss_from_embeddings([anchors, *others], None)
        assert float(encoder.in_batch(anchors, others, keys, 0.05)) == pytest.approx(float(expected), abs=1e-5)
    expected = reference.CoSENTLoss(None, scale=20.0).compute_loss_from_embeddings([anchors, positives], scores)
    assert float(encoder.by_score(anchors, positives, scores, 0.05)) == pytest.approx(float(expected), abs=1e-5)


def test_batch_without_negatives_has_zero_loss():
    keys = torch.tensor([[1, 10, 20], [1, 11, 21]])

    assert float(encoder.in_batch(unit(2, 0), [unit(2, 1)], keys, 0.05)) == 0.0
    assert float(encoder.by_score(unit(2, 0), unit(2, 1), torch.tensor([0.5, 0.5]), 0.05)) == 0.0


# Retrieval metrics


def test_ranks_equal_sentence_transformers(sentence):
    rng = np.random.default_rng(0)
    queries = rng.integers(0, 20, 40)  # some queries have several correct texts
    expected_texts = rng.permutation(60)[:40]
    vectors, texts = rng.normal(size=(20, 8)), rng.normal(size=(60, 8))
    keys, _ = retrieval.corpus(expected_texts)
    statistics = retrieval.measure(lambda start, stop: vectors[queries[start:stop]] @ texts[keys].T, queries, expected_texts)
    evaluator = sentence.sentence_transformer.evaluation.InformationRetrievalEvaluator(
        {str(query): "" for query in queries},
        {str(key): "" for key in keys},
        {str(query): {str(text) for text in expected_texts[queries == query]} for query in queries},
        mrr_at_k=[60],
    )
    ranked = [
        [{"corpus_id": str(key), "score": float(vectors[int(query)] @ texts[key])} for key in keys] for query in evaluator.queries_ids
    ]
    expected = evaluator.compute_metrics([sorted(hits, key=lambda hit: -hit["score"]) for hits in ranked])
    first_rows = [int(np.flatnonzero(queries == int(query))[0]) for query in evaluator.queries_ids]

    assert statistics["reciprocal_rank"][first_rows].mean() == pytest.approx(expected["mrr@k"][60])
    assert statistics["ndcg_at_10"][first_rows].mean() == pytest.approx(expected["ndcg@k"][10])
    for cut in retrieval.CUTS:
        assert statistics[f"recall_at_{cut}"][first_rows].mean() == pytest.approx(expected["recall@k"][cut])


def test_ties_are_broken_by_corpus_order():
    statistics = retrieval.measure(lambda start, stop: np.zeros((stop - start, 4)), [1, 2, 3, 4], [40, 30, 20, 10])

    assert statistics["reciprocal_rank"].tolist() == [1 / 4, 1 / 3, 1 / 2, 1]
    assert statistics["first"].tolist() == [0, 0, 0, 0]


def test_chunked_ranking_gives_equal_results(monkeypatch):
    rng = np.random.default_rng(0)
    similarity = rng.integers(0, 4, (50, 50)).astype(float)
    queries, expected = rng.integers(0, 30, 50), np.arange(50)
    whole = retrieval.measure(lambda start, stop: similarity[start:stop], queries, expected)
    monkeypatch.setattr(retrieval, "_CHUNK", 7)
    parts = retrieval.measure(lambda start, stop: similarity[start:stop], queries, expected)

    assert all((whole[name] == parts[name]).all() for name in whole)


def test_spearman_equals_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    metric = tasks.load("contrastive", {"data": "scored"}).test_metrics["spearman"]
    for a, b in ((rng.normal(size=50), rng.integers(0, 6, 50)), (np.arange(9.0), -np.arange(9.0))):
        statistics = {**retrieval.agreement(a, b.astype(float)), "rows": np.ones(len(a))}
        assert metric.of(statistics) == pytest.approx(spearmanr(a, b).statistic)
    constant = {**retrieval.agreement(np.zeros(5), np.arange(5.0)), "rows": np.ones(5)}
    assert metric.of(constant) == 0.0


@pytest.mark.parametrize("data", CONTRASTIVE_FORMATS)
def test_validation_and_test_metrics_agree(base, tickets, tmp_path, data):
    task = tasks.load("contrastive", {"data": data})
    rows, folder = contrastive_rows(tickets, data), save(base, tmp_path, data=data)
    table = task.encode(rows, task.load_tokenizer(base), spec(data))
    batch = task.collator(task.load_tokenizer(base), spec(data))(table.select(["input_ids", "labels"]).to_pylist())
    with torch.no_grad():
        output = task.build_model(folder, spec(data)).eval()(**batch)
    validated = task.validate(output.logits.numpy(), batch["labels"].numpy(), spec(data))
    predictions = Predictions.from_output(rows, task.predictor(folder).answer(rows))

    assert math.isfinite(float(output.loss))
    tested = {name: metric.of(statistics_of(task, predictions)) for name, metric in task.test_metrics.items()}
    assert validated == pytest.approx(tested, abs=1e-3)


# Predictions


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_transformers_loads_the_saved_model(sentence, tickets, tmp_path, family, pooling):
    folder = save(make_encoder(tmp_path / "base", family, tickets["text"].tolist()), tmp_path / "model", pooling=pooling)
    texts = [*tickets["text"][:10], "wifi", "slow " * 40]
    vectors = tasks.of(spec(pooling=pooling)).predictor(folder).embed(texts)
    reference = sentence.SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(texts)

    assert vectors.shape == (12, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(vectors, reference, atol=1e-5)


def test_vectors_do_not_depend_on_batching(base, tickets, tmp_path):
    predictor = tasks.load("contrastive").predictor(save(base, tmp_path))
    texts = [*tickets["text"][:20], "wifi", "slow " * 40, "", "wifi"]

    np.testing.assert_allclose(predictor.embed(texts, 32), predictor.embed(texts[::-1], 1)[::-1], atol=1e-5)
    assert predictor.embed(["wifi  slow\u200b\n"]).tolist() == predictor.embed(["wifi slow"]).tolist()


def test_serving_and_test_give_equal_vectors(base, tickets, tmp_path):
    rows, predictor = contrastive_rows(tickets), tasks.load("contrastive").predictor(save(base, tmp_path))
    served, tested = predictor.answer(rows[["text"]]), predictor.answer(rows)

    assert served.predicted == tested.predicted
    assert not served.measured
    np.testing.assert_allclose(json.loads(served.predicted[0]), predictor.embed([rows["text"][0]])[0], atol=1e-6)
    assert predictor.answer(rows.head(0)).predicted == []


def test_saved_model_is_a_base_for_other_tasks(base, tickets, tmp_path):
    task, folder = tasks.load("contrastive"), save(base, tmp_path)
    again = task.build_model(folder, spec())
    classifier = tasks.load("text_classification").build_model(folder, spec().model_copy(update={"labels": ("a", "b")}))
    encoder = {f"bert.{name}": weights for name, weights in again.encoder.state_dict().items()}

    assert all(torch.equal(classifier.state_dict()[name], weights) for name, weights in encoder.items())
    assert not [name for name in encoder if "pooler" in name]


# Baselines and report tables


def test_baselines_search_by_words():
    corpus = ["fracture of the arm", "cholera", "pain in the chest"]
    for index in (search.tfidf, search.bm25):
        scores = index(corpus)
        assert scores(["broken arm", "chest pain", "Cholera", "?"]).argmax(axis=1).tolist()[:3] == [0, 2, 1]
        assert scores(["?", "unknown"]).max() == 0
        assert index(["?", "!"])(["a"]).tolist() == [[0, 0]]


@pytest.mark.parametrize("data", CONTRASTIVE_FORMATS)
def test_baselines_have_the_same_metrics(base, tickets, data):
    task, rows = tasks.load("contrastive", {"data": data}), contrastive_rows(tickets, data)
    outputs = predict_baselines(task, rows.head(0), rows, spec(data), base)
    measured = {
        name: {n: m.of(statistics_of(task, Predictions.from_output(rows, output))) for n, m in task.test_metrics.items()}
        for name, output in outputs.items()
    }

    assert tuple(outputs) == task.baselines
    if data in ("pairs", "triplets"):
        assert measured["tfidf"]["mrr"] > 0.95  # same words in reverse order
        assert outputs["tfidf"].predicted[0] in set(rows["positive"])
    if data == "texts":
        assert measured["tfidf"]["mrr"] < 0.5  # the halves share no words


@pytest.mark.parametrize("data", CONTRASTIVE_FORMATS)
def test_slices_and_tables_match_the_results(base, tickets, tmp_path, data):
    task, rows = tasks.load("contrastive", {"data": data}), contrastive_rows(tickets, data)
    predictions = Predictions.from_output(rows, task.predictor(save(base, tmp_path, data=data)).answer(rows))
    tables = task.tables(rows, predictions)

    assert all(len(values) == len(rows) for values in task.slices(rows).values())
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    if data == "scored":
        assert tables[0].rows
    else:
        misses, hits = tables
        assert [row[2] for row in misses.rows] == sorted((row[2] for row in misses.rows), reverse=True)
        assert all(row[3].split("\n")[0] == row[1] for row in hits.rows)
        assert all(row[3].split("\n")[0] != row[1] for row in misses.rows)
    if data == "pairs":
        assert set(task.slices(rows)["overlap"]) == {"a word in common"}
