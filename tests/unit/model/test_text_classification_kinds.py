"""Label kinds of text classification: parsing, targets, answers and metrics."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from components.artifacts.predictions import Predictions
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadParams
from components.model import tasks
from components.model.tasks.text_classification.multi import best_threshold, fit_thresholds
from components.model.tasks.text_classification.numbers import answer, sums, text
from tests.support.labelled import KINDS, paired, predict_baselines, relabelled, statistics_of

single, multi, ordinal, regression = (tasks.load("text_classification", options) for options in KINDS.values())
named = tasks.load("text_classification", {"kind": "multi", "labels": ["a", "b", "c"]})
graded = tasks.load("text_classification", {"kind": "ordinal"})


def cells(*labels):
    return pd.DataFrame({"text": ["some words"] * len(labels), "label": pd.Series(labels, dtype="str")})


def spec(task, *labels, **options):
    full_options = {**task.options.model_dump(mode="json"), **options}
    return ModelSpec(task="text_classification", labels=labels, max_length=16, unicode_form="NFC", options=full_options)


@pytest.mark.parametrize(
    ("task", "options", "match"),
    [
        ("levels", {"levels": ["a", "b"]}, "levels is used only with kind ordinal, not single"),
        ("separator", {"kind": "regression", "separator": "|"}, "separator is used only with kind multi"),
        ("weights", {"kind": "regression", "class_weights": "balanced"}, "class_weights is used only with kind single or multi or ordinal"),
        ("once", {"kind": "ordinal", "levels": ["a", "a"]}, "at least two different non-empty names"),
        ("threshold", {"kind": "multi", "thresholds": {"a": 1.5}}, "above 0 and up to 1 for 'a'"),
        ("weight", {"class_weights": {"a": 0}}, "above 0 for 'a'"),
    ],
)
def test_unused_and_invalid_options_are_rejected(task, options, match):
    with pytest.raises(BadParams, match=match):
        tasks.load("text_classification", options)


def test_stored_options_are_valid_options(tickets):
    for kind, options in KINDS.items():
        task = tasks.load("text_classification", options)
        fitted = task.fit_options(relabelled(tickets, kind))
        stored = spec(task, "a", "b", **fitted, **({"thresholds": {"a": 0.25}} if kind == "multi" else {}))

        assert tasks.of(stored).options.model_dump(mode="json") == json.loads(json.dumps(stored.options))


def test_multi_labels_are_read_from_lists_or_separators():
    read, faults = multi.read(cells('["b", "a", "b"]', "b; a", "a", "[]", "[3, 1]", '["b"', "a;;b", '["a", null]', '["a", ["b"]]'))

    assert read["label"].tolist()[:5] == ['["a", "b"]', '["a", "b"]', '["a"]', "[]", '["1", "3"]']
    assert sorted(faults) == [5, 6, 7, 8]
    assert "label is not a valid JSON list" in faults[5]
    assert faults[6] == "label contains an empty name"
    assert "an item that is not a name: null" in faults[7]
    assert multi.labels_of(read.iloc[:5]) == ("1", "3", "a", "b")
    assert multi.label_counts(read.iloc[:5]) == {"a": 3, "b": 2, "1": 1, "3": 1}


def test_only_listed_labels_are_allowed():
    read, faults = named.read(cells("a;d", "c"))

    assert faults == {0: "label 'd' is not in task_options.labels"}
    assert named.labels_of(read.drop(index=0)) == ("a", "b", "c")


def test_levels_are_listed_or_numbers():
    assert ordinal.read(cells(" low", "worst"))[1] == {1: "label is not in task_options.levels"}
    assert ordinal.labels_of(cells("low")) == ("low", "middle", "high")
    read, faults = graded.read(cells("10", "2.0", " 2", "1.5", "good", "nan"))

    assert graded.labels_of(read.iloc[:4]) == ("1.5", "2", "10")
    assert faults == {4: "label is not a number (with a decimal point)", 5: "label is not a finite number"}


def test_numbers_have_one_format():
    read, faults = regression.read(cells("3.0", "-0.25", "1e3", "3,5", "inf"))

    assert read["label"].tolist()[:3] == ["3", "-0.25", "1000"]
    assert sorted(faults) == [3, 4]
    assert [answer(3.14159265), answer(1234567.8), answer(-0.0), answer(2.0)] == ["3.1416", "1234600", "0", "2"]


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_number_label_keeps_its_value(number):
    assert float(text(number)) == number


def test_pair_text_joins_both_texts(tickets):
    task = tasks.load("text_classification", {"pair": True})
    rows = paired(tickets.head(6))
    read, faults = task.read(rows)

    assert (task.columns, task.inputs) == (("text_a", "text_b", "label"), ("text_a", "text_b"))
    assert not faults
    assert read["text"].iloc[0] == f"{rows['text_a'].iloc[0]} ␞ {rows['text_b'].iloc[0]}"
    assert read["text_a"].tolist() == rows["text_a"].tolist()


def test_pair_is_encoded_as_one_input(tiny_base, tickets):
    task = tasks.load("text_classification", {"pair": True})
    rows, tokenizer = task.read(paired(tickets.head(6)))[0], task.load_tokenizer(tiny_base)
    table = task.encode(rows, tokenizer, spec(task, *task.labels_of(rows)))
    ids, types = table.column("input_ids")[0].as_py(), table.column("token_type_ids")[0].as_py()

    assert ids == tokenizer(rows["text_a"].iloc[0], rows["text_b"].iloc[0])["input_ids"]
    assert types == [0] * 6 + [1] * 5
    assert table.column("length").to_pylist() == task.lengths(rows, tokenizer).tolist() == [11] * 6


def test_targets_of_each_kind(tickets):
    by_kind = {kind: tasks.load("text_classification", options) for kind, options in KINDS.items()}
    multi_targets = by_kind["multi"].targets(['["b"]', "[]"], spec(multi, "a", "b"))
    scaled = by_kind["regression"].targets(["30", "10"], spec(regression, centre=20.0, spread=5.0))

    assert multi_targets.to_pylist() == [[0.0, 1.0], [0.0, 0.0]]
    assert scaled.to_pylist() == [2.0, -2.0]
    assert by_kind["ordinal"].targets(["high", "low"], spec(ordinal, *ordinal.options.levels)).to_pylist() == [2, 0]
    with pytest.raises(BadData, match="'c'"):
        by_kind["multi"].targets(['["c"]'], spec(multi, "a", "b"))


def test_regression_scale_is_fitted_on_training_rows():
    assert regression.fit_options(cells("10", "20", "30")) == {"centre": 20.0, "spread": pytest.approx(8.1649658, rel=1e-6)}
    assert regression.fit_options(cells("7", "7")) == {"centre": 7.0, "spread": 1.0}
    fixed = tasks.load("text_classification", {"kind": "regression", "centre": 0, "spread": 100})
    assert fixed.fit_options(cells("10", "20")) == {"centre": 0.0, "spread": 100.0}


labels = st.lists(st.sampled_from("abc"), unique=True).map(lambda names: json.dumps(sorted(names)))


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=12))
def test_multi_label_metrics_equal_scikit_learn(pairs):
    expected, predicted = zip(*pairs, strict=True)
    truth, answers = ([[label in json.loads(cell) for label in "abc"] for cell in side] for side in (expected, predicted))
    ours = {name: metric.of(named.statistics(expected, predicted)) for name, metric in named.test_metrics.items()}

    for average in ("micro", "macro"):
        assert ours[f"{average}_f1"] == pytest.approx(reference.f1_score(truth, answers, average=average, zero_division=0.0))
    assert ours["micro_precision"] == pytest.approx(reference.precision_score(truth, answers, average="micro", zero_division=0.0))
    assert ours["micro_recall"] == pytest.approx(reference.recall_score(truth, answers, average="micro", zero_division=0.0))
    assert ours["subset_accuracy"] == pytest.approx(reference.accuracy_score(truth, answers))
    assert ours["jaccard"] == pytest.approx(reference.jaccard_score(truth, answers, average="samples", zero_division=1.0))


def test_macro_f1_needs_listed_labels():
    assert "macro_f1" in named.test_metrics
    assert "macro_f1" not in multi.test_metrics
    assert set(multi.statistics(["[]"], ["[]"])) == {"hits", "predicted", "expected", "right", "jaccard", "rows"}


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=20))
def test_ordinal_metrics_equal_references(pairs):
    expected, predicted = zip(*pairs, strict=True)
    statistics = graded.statistics([str(level) for level in expected], [str(level) for level in predicted])
    kappa = graded.test_metrics["quadratic_weighted_kappa"].of(statistics)

    if len({*expected, *predicted}) > 1:
        assert kappa == pytest.approx(reference.cohen_kappa_score(expected, predicted, weights="quadratic", labels=range(1, 6)))
    else:
        assert kappa == 1.0
    assert graded.test_metrics["neg_mae"].of(statistics) == pytest.approx(-reference.mean_absolute_error(expected, predicted))
    assert graded.test_metrics["accuracy"].of(statistics) == pytest.approx(reference.accuracy_score(expected, predicted))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=3, max_size=20), st.sampled_from([0.0, 1e6]))
def test_regression_metrics_equal_references(pairs, shift):
    expected, predicted = (np.array(side, dtype=np.float64) / 8 + shift for side in zip(*pairs, strict=True))
    ours = {name: metric.of(sums(expected, predicted)) for name, metric in regression.test_metrics.items()}

    assert ours["neg_mse"] == pytest.approx(-reference.mean_squared_error(expected, predicted))
    assert ours["neg_mae"] == pytest.approx(-reference.mean_absolute_error(expected, predicted))
    if len(set(expected)) > 1:
        assert ours["r2"] == pytest.approx(reference.r2_score(expected, predicted), abs=1e-9)
    if len(set(expected)) > 1 and len(set(predicted)) > 1:
        assert ours["pearson"] == pytest.approx(stats.pearsonr(expected, predicted).statistic, abs=1e-9)
        assert ours["spearman"] == pytest.approx(stats.spearmanr(expected, predicted).statistic, abs=1e-9)


def test_constant_has_zero_correlation():
    values = {name: metric.of(sums(np.full(3, 7.0), np.array([1.0, 2.0, 3.0]))) for name, metric in regression.test_metrics.items()}

    assert (values["r2"], values["pearson"], values["spearman"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("task", [multi, named, ordinal, regression])
def test_leaving_a_row_out_is_a_subtraction(task, tickets):
    """The jackknife: sums of all rows minus one row give the metric of the remaining rows (ranks kept)."""
    examples = {
        "multi": ['["a"]', "[]", '["a", "b"]', '["b"]'],
        "ordinal": ["low", "high", "middle", "low"],
        "regression": ["1", "4", "2", "9"],
    }
    expected = examples[task.options.kind]
    statistics = task.statistics(expected, expected[1:] + expected[:1])
    for name, metric in task.test_metrics.items():
        totals = [statistics[name_of_sum].sum() for name_of_sum in metric.sums]
        without = metric.value(*(total - statistics[name_of_sum] for name_of_sum, total in zip(metric.sums, totals, strict=True)))
        alone = [metric.of({name_of_sum: np.delete(values, row) for name_of_sum, values in statistics.items()}) for row in range(4)]

        assert without.shape == (4,), name
        np.testing.assert_allclose(without, alone, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_best_threshold_is_optimal():
    rng = np.random.default_rng(0)
    probabilities, expected = rng.random((200, 4)).round(2), rng.random((200, 4)) < 0.2
    for column, truth in zip(probabilities.T, expected.T, strict=True):
        fitted = reference.f1_score(truth, column >= best_threshold(column, truth))
        others = [reference.f1_score(truth, column >= limit) for limit in np.linspace(0.005, 0.995, 100)]
        assert fitted == pytest.approx(max(others))


def test_rare_label_shares_its_threshold():
    probabilities = np.array([[0.9, 0.3], [0.8, 0.1], [0.7, 0.1], [0.65, 0.2], [0.6, 0.1], [0.2, 0.1]])
    expected = np.array([[1, 1], [1, 0], [1, 0], [1, 0], [1, 0], [0, 0]], dtype=bool)

    assert fit_thresholds(probabilities, expected) == [0.4, 0.25]
    assert fit_thresholds(probabilities, np.zeros_like(expected)) == [0.5, 0.5]


def test_answers_follow_the_thresholds():
    scores = np.array([[0.4, 0.6], [0.2, 0.1]])

    assert multi.answers(scores, spec(multi, "a", "b")).predicted == ['["b"]', "[]"]
    assert multi.answers(scores, spec(multi, "a", "b", thresholds={"a": 0.3})).predicted == ['["a", "b"]', "[]"]


def test_level_answer_is_the_median():
    level_spec = spec(ordinal, "low", "middle", "high")
    scores = ordinal.scores(torch.tensor([[2.0, -2.0], [2.0, 2.0], [-2.0, 5.0]], dtype=torch.float64), level_spec).numpy()

    np.testing.assert_allclose(scores.sum(axis=1), 1.0)
    assert (scores >= 0).all()
    assert ordinal.answers(scores, level_spec).predicted == ["middle", "high", "low"]


def test_corn_loss_equals_the_paper():
    """As in the authors' code: log-sigmoids over the rows above the previous threshold, divided by their number."""
    logits, levels = torch.tensor([[0.3, -1.0], [1.2, 0.4], [-0.5, 2.0]]), torch.tensor([0, 1, 2])
    total, count = 0.0, 0
    for threshold in (0, 1):
        above_previous = levels > threshold - 1
        above, threshold_logits = levels[above_previous] > threshold, logits[above_previous, threshold]
        log = torch.nn.functional.logsigmoid(threshold_logits)
        total -= (log * above + (log - threshold_logits) * ~above).sum()
        count += int(above_previous.sum())

    loss = ordinal.loss(spec(ordinal, "low", "middle", "high"), 0.0)
    assert loss(logits, levels) == pytest.approx(float(total) / count, rel=1e-6)


def test_balanced_weights_equalise_labels():
    balanced = tasks.load("text_classification", {"class_weights": "balanced"})
    fitted = balanced.fit_options(cells(*"aaaaaab"))
    logits, expected = torch.randn(6, 2, generator=torch.manual_seed(0)), torch.tensor([0, 0, 1, 0, 1, 1])
    loss = balanced.loss(spec(balanced, "a", "b", **fitted), 0.1)

    assert fitted == {"class_weights": {"a": pytest.approx(7 / 12, abs=1e-6), "b": 3.5}}
    weighted = torch.nn.functional.cross_entropy(logits, expected, weight=torch.tensor([7 / 12, 3.5]), label_smoothing=0.1, reduction="sum")
    assert float(loss(logits, expected)) == pytest.approx(float(weighted) / 6, rel=1e-5)
    assert single.loss(spec(single, "a", "b"), 0.1) is None


def test_equal_weights_change_nothing():
    task = tasks.load("text_classification", {"class_weights": {"a": 1.0, "b": 1.0}})
    logits, expected = torch.randn(6, 2, generator=torch.manual_seed(0)), torch.tensor([0, 0, 1, 0, 1, 1])

    assert torch.allclose(task.loss(spec(task, "a", "b"), 0.0)(logits, expected), torch.nn.functional.cross_entropy(logits, expected))


def test_multi_label_weights_balance_positives():
    task = tasks.load("text_classification", {"kind": "multi", "class_weights": "balanced"})

    assert task.fit_options(cells('["a"]', '["a", "b"]', '["a"]', "[]")) == {"class_weights": {"a": 0.333333, "b": 3.0}}


def test_weight_of_unknown_label_is_rejected():
    with pytest.raises(BadParams, match="class_weights has unknown labels 'c'; the training rows have: a, b"):
        tasks.load("text_classification", {"class_weights": {"c": 2.0}}).fit_options(cells("a", "b"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", [False, True])
def test_baselines_tables_and_slices(tickets, kind, pair, tiny_base):
    task = tasks.load("text_classification", {**KINDS[kind], "pair": pair})
    rows = relabelled(tickets, kind)
    rows = task.read(paired(rows) if pair else rows)[0]
    train, test = rows.iloc[60:].reset_index(drop=True), rows.iloc[:60].reset_index(drop=True)
    outputs = predict_baselines(task, train, test, spec(task, *task.labels_of(rows)), tiny_base)
    scores = {
        name: next(iter(task.test_metrics.values())).of(statistics_of(task, Predictions.from_output(test, output)))
        for name, output in outputs.items()
    }
    tables = task.tables(test, Predictions.from_output(test, outputs["tfidf"]))

    assert tuple(outputs) == task.baselines
    assert scores["tfidf"] > scores[task.baselines[0]] + 0.2
    assert scores["probe"] > scores[task.baselines[0]] + 0.2
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
    assert all(len(values) == 60 for values in task.slices(test).values())


@pytest.mark.parametrize("options", [{}, {"kind": "ordinal", "levels": ["low", "high"]}])
def test_tfidf_predicts_rare_classes(options, tiny_base):
    task = tasks.load("text_classification", options)
    counts = [("smoke", "high", 24), ("smoke", "low", 36), ("noise", "high", 16), ("noise", "low", 324)]
    rows = pd.DataFrame([(word, label) for word, label, count in counts for _ in range(count)], columns=["text", "label"])
    rows = rows.assign(group=rows.index.astype(str))
    predicted = predict_baselines(task, rows, rows, spec(task, *task.labels_of(rows)), tiny_base)["tfidf"].predicted

    assert [label for text, label in zip(rows["text"], predicted, strict=True) if text == "smoke"] == ["high"] * 60


def test_label_table_equals_scikit_learn(tickets):
    rng = np.random.default_rng(1)
    rows = relabelled(tickets, "multi").head(50)
    names = multi.labels_of(rows)
    scores = rng.random((50, len(names)))
    table = multi.tables(rows, Predictions.from_output(rows, multi.answers(scores, spec(multi, *names))))[0]
    truth = np.array([[name in json.loads(cell) for name in names] for cell in rows["label"]])
    by_name = {row[0]: row for row in table.rows}

    for index, name in enumerate(names):
        expected = [
            truth[:, index].sum(),
            *(
                metric(truth[:, index], scores[:, index] >= 0.5)
                for metric in (reference.precision_score, reference.recall_score, reference.f1_score)
            ),
            *(metric(truth[:, index], scores[:, index]) for metric in (reference.roc_auc_score, reference.average_precision_score)),
        ]
        assert by_name[name][1:] == pytest.approx(expected, abs=1e-4)
    assert by_name["mean over labels"][5] == pytest.approx(reference.roc_auc_score(truth, scores, average="macro"), abs=1e-4)


def test_texts_without_words_use_the_constant_baseline(tickets, tiny_base):
    for kind, options in KINDS.items():
        task = tasks.load("text_classification", options)
        rows = relabelled(tickets, kind).assign(text="-")
        outputs = predict_baselines(task, rows, rows.head(3), spec(task, *task.labels_of(rows)), tiny_base)

        assert outputs["tfidf"].predicted == outputs[task.baselines[0]].predicted
