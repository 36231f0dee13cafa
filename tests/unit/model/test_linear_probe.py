"""The linear probe equals scikit-learn's solutions, keeps groups together, and chooses its settings out of fold."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from components.model import tasks
from components.model.support import linear_probe
from components.model.support.frozen_features import FrozenFeatures
from tests.support.learn import spec_of

LABELS = ("a", "b", "c")
single = tasks.load("text_classification")


def made(rows=240, labels=3, seed=0, noise=1.0, shares=None):
    """Return features around one centre per label, of very different scales, and off the origin."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(labels, rows, p=shares)
    vectors = rng.normal(size=(labels, 8))[targets] + noise * rng.normal(size=(rows, 8))
    vectors = (vectors * 10.0 ** np.arange(-2, 6, dtype=float) + 5).astype(np.float32)
    return FrozenFeatures(vectors, targets, np.arange(rows), np.arange(rows))


def solved(features, solver, weighting="none", strength=0.1):
    return next(linear_probe._solutions(features, solver, weighting, [strength]))


def standardised(features):
    return StandardScaler().fit_transform(features.vectors.astype(np.float64))


@pytest.mark.parametrize("labels", [2, 3])
def test_multinomial_head_equals_scikit_learn(labels):
    features = made(labels=labels)
    weight, bias = solved(features, linear_probe.multinomial(labels))
    oracle = LogisticRegression(C=0.1, tol=1e-6).fit(standardised(features), features.targets)

    logits = features.vectors @ weight.T + bias
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(chances / chances.sum(axis=1, keepdims=True), oracle.predict_proba(standardised(features)), atol=5e-3)


@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_independent_outputs_equal_scikit_learn(weighting):
    features = made(shares=[0.7, 0.2, 0.1])
    truth = features.targets[:, None] == np.arange(3)
    weights = np.where(truth, (1 / truth.mean(axis=0) - 1) if weighting == "balanced" else 1.0, 1.0)
    weight, bias = solved(features, linear_probe.logistic(lambda targets, weighting: (truth, weights)), weighting)

    for output in range(3):
        oracle = LogisticRegression(C=0.1, tol=1e-6).fit(standardised(features), truth[:, output], sample_weight=weights[:, output])
        expected = oracle.decision_function(standardised(features))
        np.testing.assert_allclose(features.vectors @ weight[output] + bias[output], expected, atol=5e-3)


def test_ridge_head_equals_scikit_learn():
    features = made()
    weight, bias = solved(features, linear_probe.ridge)
    oracle = Ridge(alpha=10).fit(standardised(features), features.targets)

    np.testing.assert_allclose((features.vectors @ weight.T + bias)[:, 0], oracle.predict(standardised(features)), atol=1e-6)


def test_head_without_a_bias_has_no_bias():
    features = FrozenFeatures(*vars(made()).values())
    bare = FrozenFeatures(features.vectors, features.targets, features.rows, features.groups, bias=False)

    assert not single.fit_head(bare, spec_of(*LABELS), "accuracy").bias.any()


def test_metric_is_out_of_fold():
    features = made(rows=60, noise=50.0)  # nothing can be learnt
    head = single.fit_head(features, spec_of(*LABELS), "accuracy")
    within = single.validate(head.logits(features.vectors), features.targets, spec_of(*LABELS))["accuracy"]

    assert head.value < 0.5 < within + 0.2
    assert head.value == single.validate(head.outputs, head.expected, spec_of(*LABELS))["accuracy"]


def test_groups_are_not_split_between_folds():
    features = made(rows=90)
    groups = np.arange(90) // 3
    grouped = FrozenFeatures(features.vectors, features.targets, features.rows, groups)
    folds = linear_probe._folds(grouped, features.targets)

    assert len(folds) == 5
    assert all(set(groups[train]).isdisjoint(groups[held]) for train, held in folds)


def test_same_features_give_the_same_bits():
    heads = [single.fit_head(made(), spec_of(*LABELS), "macro_f1") for _ in range(2)]

    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()
    assert heads[0].description == heads[1].description


def test_balanced_weights_are_chosen_for_rare_classes():
    features = made(rows=1000, noise=4.0, shares=[0.8, 0.1, 0.1])

    assert "class weights balanced" in single.fit_head(features, spec_of(*LABELS), "macro_f1").description
    assert "class weights none" in single.fit_head(features, spec_of(*LABELS), "accuracy").description


def test_given_class_weights_are_used():
    spec = spec_of(*LABELS).model_copy(update={"options": {"class_weights": {"a": 1.0, "b": 50.0, "c": 1.0}}})
    head = single.fit_head(made(noise=5.0), spec, "accuracy")

    assert "class weights given" in head.description
    assert (head.logits(made(noise=5.0).vectors).argmax(axis=1) == 1).mean() > 0.7


def test_label_without_rows_is_never_predicted():
    features = made(labels=2)
    head = single.fit_head(features, spec_of(*LABELS), "accuracy")

    assert set(head.logits(features.vectors).argmax(axis=1)) == {0, 1}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_are_fitted_without_folds(rows):
    features = made().take(np.arange(rows))
    features = FrozenFeatures(features.vectors, np.arange(rows), features.rows, features.groups)
    head = single.fit_head(features, spec_of(*LABELS), "accuracy")

    assert "too few rows for cross-validation" in head.description
    assert np.isnan(head.value)
    assert np.isfinite(head.weight).all()


def test_constant_features_get_no_weight():
    features = made()
    vectors = np.hstack([features.vectors, np.full((len(features.vectors), 2), 7, np.float32)])
    head = single.fit_head(FrozenFeatures(vectors, *list(vars(features).values())[1:]), spec_of(*LABELS), "accuracy")

    assert not head.weight[:, 8:].any()
    assert head.weight[:, :8].all()


def test_features_of_a_dead_unit_get_no_weight():
    features = made()
    dead = 1e-30 * np.random.default_rng(3).standard_normal((len(features.vectors), 2)).astype(np.float32)
    vectors = np.hstack([features.vectors, dead])
    head = single.fit_head(FrozenFeatures(vectors, *list(vars(features).values())[1:]), spec_of(*LABELS), "accuracy")

    assert not head.weight[:, 8:].any()
    assert head.weight[:, :8].all()


def test_many_vectors_are_sampled(monkeypatch, caplog):
    monkeypatch.setattr(linear_probe, "_MOST_COMPARED", 8 * 4 * 100)
    monkeypatch.setattr(linear_probe, "_MOST_FITTED", 8 * 4 * 300)
    with caplog.at_level("INFO"):
        head = single.fit_head(made(rows=500), spec_of(*LABELS), "accuracy")

    assert "linear probe: settings compared on 100 of 500 vectors, output layer fitted on 300" in caplog.text
    assert "linear probe on 300 vectors" in head.description
    assert len(head.outputs) == 100
