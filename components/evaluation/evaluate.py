"""Score the candidate and its baselines on the test split.

Reads a trained model folder with its training.json, data/prepared (test/test.parquet, learn, profile.json) and data/base. Writes
predictions/{candidate and each baseline}.parquet, metrics.json (every number with its interval), scores.json (flat, for
`dvc metrics`), confusion.csv, reliability.csv and classes.csv (for `dvc plots`). The same model gives the same bytes.
"""

import csv
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from components.artifacts.manifest import base_folder
from components.artifacts.metrics import CalibrationBin, ClassScore, Estimate, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.rows import AUGMENTED, read_rows
from components.artifacts.training import Training
from components.core.errors import BadData, BadModel
from components.core.hashing import digest_folder
from components.core.output_dir import fresh
from components.core.section import NOTHING, OpenSection, Section
from components.evaluation.metric_set import metric_set
from components.model import tasks
from components.stats.calibration import brier, calibration_error, reliability
from components.stats.f1 import class_counts
from components.stats.true_classes import TrueClasses

log = logging.getLogger(__name__)

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TAG = re.compile(r"<(?=[/!?A-Za-z])")
_LARGE_GROUP = 0.2  # of the rows: a larger group dominates every metric


class EvaluateParams(Section):
    """Batch size of the prediction, and the classes that count."""

    batch_size: int = Field(64, ge=1, le=4096, description="texts per forward pass; changes speed and memory only")
    min_class_units: int = Field(10, ge=1, description="minimum test groups (rows if there are no groups) of a class in macro-F1")


def evaluate(
    model: Path, prepared: Path, base: Path, out: Path, *, task: str, evaluate: EvaluateParams, task_options: OpenSection = NOTHING
) -> None:
    """Predict the test split with `model` and the baselines, score the predictions, and write the results to `out`.

    The baselines are fitted to the training rows, and compared with each other on the validation rows. The training.json beside `model`
    names the method, if there is one.

    Raises:
        BadData: the test split is empty.
        BadModel: the labels of the model and of `prepared` differ.
    """
    plugin, profile, model_digest = tasks.load(task, task_options.fields), Profile.read(prepared), digest_folder(model)
    test = _in_order(read_rows(prepared / "test" / "test.parquet"))
    if test.empty:
        raise BadData(f"{prepared / 'test' / 'test.parquet'} has no rows to evaluate on; raise preprocess.test_share")
    predictor = _load(plugin, model, profile.labels)
    candidate = Predictions.from_output(test, predictor.answer(test, evaluate.batch_size))
    train, base_model = read_rows(prepared / "learn" / "train.parquet"), base_folder(base, predictor.spec.base)
    real = train[train[AUGMENTED].isna()].reset_index(drop=True) if AUGMENTED in train else train  # noise would weaken the baselines
    fitted = tasks.of(predictor.spec).fit_baselines(real, predictor.spec, base_model)  # with the options of the candidate, e.g. its pooling
    validation = read_rows(prepared / "learn" / "validation.parquet")
    baselines = {name: Predictions.from_output(test, fitted[name](test)) for name in plugin.baselines}
    on_validation = {name: Predictions.from_output(validation, fitted[name](validation)) for name in plugin.baselines}
    metrics = compute_metrics(plugin, candidate, baselines, profile, model_digest, evaluate.min_class_units)
    training = Training.find(model.parent)
    added = {"tables": plugin.tables(test, candidate), "validation": validation_scores(plugin, on_validation)}
    metrics = metrics.model_copy(update=added | {"method": str(training.settings.get("method", "")) if training else ""})
    _log_metrics(metrics, candidate.groups)

    fresh(out)
    (out / "predictions").mkdir()
    for name, predictions in {"candidate": candidate, **baselines}.items():
        predictions.write(out / "predictions" / f"{name}.parquet")
    write_tables(metrics, candidate, out)
    metrics.write(out)


def compute_metrics(
    task: tasks.Task,
    candidate: Predictions,
    baselines: dict[str, Predictions],
    profile: Profile,
    model_digest: str,
    min_class_units: int,
) -> Metrics:
    """Return all scores of the candidate and its baselines, and the paired differences."""
    measured = metric_set(task, candidate, min_class_units)
    return Metrics(
        rows=measured.units.rows,
        groups=measured.units.count,
        test_digest=profile.test_digest,
        snapshot=profile.snapshot,
        model_digest=model_digest,
        headline={metric: measured.score(metric, candidate) for metric in measured.shown},
        baselines={name: {metric: measured.score(metric, baseline) for metric in measured.shown} for name, baseline in baselines.items()},
        differences={
            name: {metric: measured.difference(metric, candidate, baseline) for metric in measured.metrics}
            for name, baseline in baselines.items()
        },
        says={name: metric.description for name, metric in measured.measures.items() if metric.estimator is None},
        **(_class_metrics(measured.truth, candidate) if measured.truth else {}),
    )


def validation_scores(task: tasks.Task, baselines: Mapping[str, Predictions]) -> dict[str, dict[str, float]]:
    """Return the metrics of each baseline on the validation rows; macro-F1 is over all classes, however few their rows are."""
    scores = {}
    for name, predictions in baselines.items():
        measured = metric_set(task, predictions, 1)
        scores[name] = {metric: measured.score(metric, predictions).value for metric in measured.metrics}
    return scores


def _class_metrics(truth: TrueClasses, candidate: Predictions) -> dict[str, Any]:
    right = candidate.predicted == candidate.expected
    confidences = candidate.probabilities.max(axis=1)
    error, debiased = calibration_error(confidences, right)
    return {
        "classes": _classes(truth, truth.encode(candidate.predicted)),
        "left_out": truth.left_out,
        "brier": brier(candidate.probabilities, truth.expected, truth.units),
        "ece": error,
        "ece_debiased": debiased,
        "reliability": reliability(confidences, right),
    }


def flatten(metrics: Metrics) -> dict[str, float]:
    """Return the numbers for `dvc metrics show` and `diff`: one level, names without dots, the same in every run.

    `…_over_best` are the differences to the baseline that is best on validation; metrics.json says which one it is.
    """
    scores: dict[str, float] = {}
    for metric, estimate in metrics.headline.items():
        scores |= {metric: estimate.value, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
    for name, gains in metrics.differences.items():
        scores |= {f"{name}_{metric}": metrics.baselines[name][metric].value for metric in gains}
    for metric, (_, gain) in _over_best(metrics).items():
        scores |= {f"{metric}_over_best": gain.value, f"{metric}_over_best_low": gain.low}
    calibration = {"brier": metrics.brier.value if metrics.brier else None, "ece": metrics.ece, "ece_debiased": metrics.ece_debiased}
    return scores | {name: value for name, value in calibration.items() if value is not None}


def _over_best(metrics: Metrics) -> dict[str, tuple[str, Estimate]]:
    """Return for each metric the baseline that is best on validation, and the difference to it."""
    compared = next(iter(metrics.differences.values()), {})
    best = {metric: name for metric in compared if (name := metrics.best_baseline(metric))}
    return {metric: (name, metrics.differences[name][metric]) for metric, name in best.items()}


def write_tables(metrics: Metrics, candidate: Predictions, out: Path) -> None:
    """Write scores.json and the three tables that DVC plots."""
    (out / "scores.json").write_text(json.dumps(flatten(metrics), indent=2) + "\n", encoding="utf-8")
    pairs = zip(candidate.expected.tolist(), candidate.predicted.tolist(), strict=True)
    _write_csv(out / "confusion.csv", ("expected", "predicted"), pairs if metrics.classes else ())
    bins = (bin.model_dump().values() for bin in metrics.reliability)
    _write_csv(out / "reliability.csv", tuple(CalibrationBin.model_fields), bins)
    classes = ((label, *scores.model_dump().values()) for label, scores in metrics.classes.items())
    _write_csv(out / "classes.csv", ("label", *ClassScore.model_fields), classes)


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of predictions: by id, as code points."""
    return rows.iloc[np.argsort(np.array(rows["id"].tolist(), dtype=np.str_), kind="stable")].reset_index(drop=True)


def _load(task: tasks.Task, model: Path, labels: tuple[str, ...]) -> tasks.Predictor:
    """Return the model after checking that it has the labels of the data."""
    predictor = task.predictor(model)
    if (trained := predictor.spec.labels) != labels:
        raise BadModel(
            f"the labels of {model} and of the data differ: only the model has {_difference(trained, labels)}, "
            f"only the data has {_difference(labels, trained)}; run `dvc repro train`"
        )
    return predictor


def _difference(labels: Sequence[str], others: Sequence[str]) -> str:
    return ", ".join(sorted(set(labels) - set(others))) or "none"


def _classes(truth: TrueClasses, predicted: npt.NDArray[np.int64]) -> dict[str, ClassScore]:
    """Return precision, recall and F1 of every label; 0 if nothing was predicted or expected."""
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


def _log_metrics(metrics: Metrics, groups: npt.NDArray[np.str_]) -> None:
    log.info("%d test rows in %d groups", metrics.rows, metrics.groups)
    for metric, (best, gain) in _over_best(metrics).items():
        score = metrics.headline[metric]
        log.info("%s %.3f (%.3f to %.3f)", metric, score.value, score.low, score.high)
        log.info("%s over %s %+.3f (%+.3f to %+.3f)", metric, best, gain.value, gain.low, gain.high)
    if left_out := metrics.left_out:
        log.warning("%d of %d classes are too rare for macro-F1: %s", len(left_out), len(metrics.classes), ", ".join(left_out))
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) > 1 and sizes.max() > _LARGE_GROUP * metrics.rows:
        log.warning("group %s has %d test rows, but intervals assume that no group dominates", names[sizes.argmax()], sizes.max())


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV table whose cells spreadsheets do not run as formulas and `dvc plots` does not render as tags."""
    with path.open("w", encoding="utf-8", newline="") as file:
        # Every text is quoted: a lone carriage return would end a row.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(header)
        writer.writerows([_escaped(cell) for cell in row] for row in rows)


def _escaped(cell: object) -> object:
    """Escape a cell against CSV and HTML injection; numbers stay unchanged, also as text.

    Formulas get a leading apostrophe (OWASP, "CSV Injection"). DVC copies cells into a script of its page, which `</script>` would
    end: the less-than sign of a tag is replaced by a similar letter.
    """
    if not isinstance(cell, str):
        return cell
    text = _TAG.sub("‹", cell)
    return f"'{text}" if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
