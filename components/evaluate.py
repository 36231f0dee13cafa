"""Score the candidate and its baselines on the test split.

Reads a trained model folder and data/prepared (test/test.parquet, learn/train.parquet, profile.json). Writes into its output
folder predictions/{candidate,majority,tfidf}.parquet, metrics.json (every number with its interval), scores.json (flat, for
`dvc metrics`), confusion.csv, reliability.csv and classes.csv (for `dvc plots`). An equal model gives equal bytes: no times.
"""

import csv
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from components import tasks
from components.artifacts.metrics import BASELINES, ClassScore, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows
from components.errors import BadData, BadModel
from components.folders import fresh
from components.identity import digest_folder
from components.params import Section
from components.statistics import COMPARABLE, METRICS, Truth, brier, calibration_error, class_counts, difference, reliability, score

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_LARGE_GROUP = 0.2  # of the rows: above it, one group's luck moves every number


class EvaluateParams(Section):
    """How the candidate is asked, and which classes count."""

    batch_size: int = Field(64, ge=1, le=4096, description="texts a forward pass; changes speed and memory only")
    min_class_units: int = Field(10, ge=1, description="test groups (rows where there are no groups) below which a class leaves macro-F1")


def evaluate(model: Path, prepared: Path, out: Path, *, task: str, evaluate: EvaluateParams) -> None:
    """Predict the test split with the trained `model` and the baselines, score all of them, and write the result into `out`.

    Raises:
        BadData: the test split is empty.
        BadModel: the model was trained on other labels than `prepared` has.
    """
    profile, model_digest = Profile.read(prepared), digest_folder(model)
    labels = profile.labels
    test = _in_order(read_rows(prepared / "test" / "test.parquet"))
    if test.empty:
        raise BadData(f"{prepared / 'test' / 'test.parquet'} has no rows to evaluate on; raise preprocess.test_share")
    candidate = _ask(model, task, labels, test, evaluate.batch_size)
    baselines = predict_baselines(read_rows(prepared / "learn" / "train.parquet"), test, labels)
    metrics = measure(candidate, baselines, profile, model_digest, evaluate.min_class_units)
    _report(metrics, candidate.groups)

    fresh(out)
    (out / "predictions").mkdir()
    for name, predictions in {"candidate": candidate, **baselines}.items():
        predictions.write(out / "predictions" / f"{name}.parquet")
    write_tables(metrics, candidate, out)
    metrics.write(out)


def predict_baselines(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> dict[str, Predictions]:
    """Return what the baselines, fitted on `train`, answer on `test`: the commonest label, and TF-IDF with a linear model."""
    shares = train["label"].value_counts(normalize=True).reindex(list(labels), fill_value=0.0).to_numpy(dtype=np.float64)
    majority: Floats = np.tile(shares, (len(test), 1)).astype(np.float64)
    tfidf = _tfidf(train, test, labels)
    if tfidf is None:
        log.warning("the training texts have no words, or one label only: TF-IDF answers as the majority does")
        tfidf = majority
    answers = {"majority": majority, "tfidf": tfidf}
    return {name: _predictions(test, answers[name], labels) for name in BASELINES}


def measure(
    candidate: Predictions, baselines: dict[str, Predictions], profile: Profile, model_digest: str, min_class_units: int
) -> Metrics:
    """Return all scores of the candidate, those of its baselines, and the paired differences; pure."""
    truth = Truth.of(candidate, min_class_units)
    right = candidate.predicted == candidate.expected
    confidences = candidate.probabilities.max(axis=1)
    error, debiased = calibration_error(confidences, right)
    return Metrics(
        rows=truth.units.rows,
        groups=truth.units.count,
        test_digest=profile.test_digest,
        snapshot=profile.snapshot,
        model_digest=model_digest,
        headline={metric: score(metric, truth, candidate.predicted) for metric in METRICS},
        baselines={name: {metric: score(metric, truth, each.predicted) for metric in METRICS} for name, each in baselines.items()},
        differences={
            name: {metric: difference(metric, truth, candidate.predicted, each.predicted) for metric in COMPARABLE}
            for name, each in baselines.items()
        },
        classes=_classes(truth, truth.encode(candidate.predicted)),
        left_out=truth.left_out,
        brier=brier(candidate.probabilities, truth.expected, truth.units),
        ece=error,
        ece_debiased=debiased,
        reliability=reliability(confidences, right),
    )


def flat(metrics: Metrics) -> dict[str, float]:
    """Return the numbers that `dvc metrics show` and `diff` print well: one level, names without dots."""
    scores: dict[str, float] = {}
    for metric, estimate in metrics.headline.items():
        scores |= {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
    for name, estimates in metrics.baselines.items():
        scores |= {f"{name}_{metric}": estimates[metric].value for metric in COMPARABLE}
    for metric, gain in metrics.differences["tfidf"].items():
        scores |= {f"{metric}_over_tfidf": gain.value, f"{metric}_over_tfidf_low": gain.low}
    return scores | {"brier": metrics.brier.value, "ece": metrics.ece, "ece_debiased": metrics.ece_debiased}


def write_tables(metrics: Metrics, candidate: Predictions, out: Path) -> None:
    """Write scores.json and the three tables that DVC plots."""
    (out / "scores.json").write_text(json.dumps(flat(metrics), indent=2) + "\n", encoding="utf-8")
    _write_csv(out / "confusion.csv", ("expected", "predicted"), zip(candidate.expected, candidate.predicted, strict=True))
    _write_csv(
        out / "reliability.csv", ("confidence", "accuracy", "rows"), ((b.confidence, b.accuracy, b.rows) for b in metrics.reliability)
    )
    columns = tuple(ClassScore.model_fields)
    _write_csv(
        out / "classes.csv",
        ("label", *columns),
        ((label, *(getattr(scores, column) for column in columns)) for label, scores in metrics.classes.items()),
    )


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order in which predictions are written: by id, as code points."""
    return rows.iloc[np.argsort(_texts(rows["id"]), kind="stable")].reset_index(drop=True)


def _ask(model: Path, task: str, labels: tuple[str, ...], test: pd.DataFrame, batch_size: int) -> Predictions:
    """Return the model's answers on raw text, after making sure that model and data have the same label map."""
    predictor = tasks.load(task).predictor(model)
    if predictor.labels != labels:
        raise BadModel(
            f"{model} was trained on other labels than the data has: only the model has {_names(predictor.labels, labels)}, "
            f"only the data has {_names(labels, predictor.labels)}; `dvc repro train` trains it anew"
        )
    return _predictions(test, predictor.probabilities(test["text"].tolist(), batch_size), labels)


def _names(these: Sequence[str], those: Sequence[str]) -> str:
    return ", ".join(sorted(set(these) - set(those))) or "none"


def _tfidf(train: pd.DataFrame, test: pd.DataFrame, labels: Sequence[str]) -> Floats | None:
    """Return the probabilities of TF-IDF over words and pairs of words with logistic regression; None where it cannot be fitted."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    if train["label"].nunique() < 2 or not any(map(vectorizer.build_analyzer(), train["text"])):
        return None
    # lbfgs starts at zero and draws nothing; on the shipped example it needs about 100 iterations.
    classifier = LogisticRegression(C=10, max_iter=10_000)
    # One thread: another count gives other last digits, and on two busy cores it took four times as long.
    with threadpool_limits(1):
        classifier.fit(vectorizer.fit_transform(train["text"]), train["label"].to_numpy(dtype=object))
        known = classifier.predict_proba(vectorizer.transform(test["text"]))
    log.info("TF-IDF baseline: %d terms, %d iterations", len(vectorizer.vocabulary_), int(classifier.n_iter_.max()))
    answers = np.zeros((len(test), len(labels)))
    answers[:, [labels.index(label) for label in classifier.classes_]] = known
    return answers


def _predictions(test: pd.DataFrame, probabilities: Floats, labels: Sequence[str]) -> Predictions:
    predicted = np.array(labels, dtype=np.str_)[probabilities.argmax(axis=1)]
    ids, groups, expected = (_texts(test[column]) for column in ("id", "group", "label"))
    return Predictions(ids, groups, expected, predicted, probabilities, tuple(labels))


def _texts(column: "pd.Series[str]") -> npt.NDArray[np.str_]:
    return np.array(column.tolist(), dtype=np.str_)


def _classes(truth: Truth, predicted: npt.NDArray[np.int64]) -> dict[str, ClassScore]:
    """Return precision, recall and F1 of every label; 0 where nothing was predicted or expected."""
    counts = class_counts(truth.expected, predicted, len(truth.labels))
    return {
        label: ClassScore(
            precision=float(counts.hits[k] / max(counts.predicted[k], 1)),
            recall=float(counts.hits[k] / max(counts.expected[k], 1)),
            f1=float(counts.f1[k]),
            rows=int(counts.expected[k]),
            groups=int(truth.class_units[k]),
            eligible=bool(truth.eligible[k]),
        )
        for k, label in enumerate(truth.labels)
    }


def _report(metrics: Metrics, groups: npt.NDArray[np.str_]) -> None:
    """Log the headline, and what makes it less than it seems."""
    log.info("%d test rows in %d groups", metrics.rows, metrics.groups)
    for metric in COMPARABLE:
        one, gain = metrics.headline[metric], metrics.differences["tfidf"][metric]
        log.info("%s %.3f (%.3f to %.3f)", metric, one.value, one.low, one.high)
        log.info("%s over TF-IDF %+.3f (%+.3f to %+.3f)", metric, gain.value, gain.low, gain.high)
    if left_out := metrics.left_out:
        log.warning("%d of %d classes are too rare for macro-F1: %s", len(left_out), len(metrics.classes), ", ".join(left_out))
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) > 1 and sizes.max() > _LARGE_GROUP * metrics.rows:
        log.warning("group %s holds %d test rows, and intervals assume that none dominates", names[sizes.argmax()], sizes.max())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
