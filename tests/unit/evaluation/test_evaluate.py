import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile, SplitProfile, TokenLengths
from components.artifacts.rows import write_rows
from components.artifacts.training import ModelSpec, Training
from components.core.errors import BadData, BadModel, NotFound
from components.core.hashing import digest_folder
from components.evaluation.evaluate import EvaluateParams, compute_metrics, evaluate, flatten
from components.model import tasks
from tests.support.labelled import predict_baselines
from tests.support.learn import spec_of

TASK = tasks.load("text_classification")
LABELS = ("billing", "device", "network")
PARAMS = EvaluateParams()


def prepare(folder: Path, rows: pd.DataFrame, labels: tuple[str, ...] = LABELS) -> Path:
    """Write data/prepared: of five groups two are test, one is validation, and two are train."""
    part = rows["group"].str[1:].astype(int) % 5
    in_test = part < 2
    for name in ("learn", "test"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_rows(rows[part > 2], folder / "learn" / "train.parquet")
    write_rows(rows[part == 2], folder / "learn" / "validation.parquet")
    write_rows(rows[in_test], folder / "test" / "test.parquet")
    lengths = TokenLengths(
        max_length=64, mean=8, quantiles={}, histogram=(), cut_rows=0, cut_share=0, cut_token_share=0
    )  # evaluation reads labels and digest only
    Profile(
        snapshot="snapshot-digest",
        rows_in=len(rows),
        kept=len(rows),
        exact_duplicates=0,
        near_duplicates=0,
        conflicting=0,
        labels=labels,
        splits={"test": SplitProfile(rows=int(in_test.sum()), groups=0, labels={})},
        tokens=lengths,
        test_digest="test-digest",
        learn_digest="learn-digest",
        warnings=(),
    ).write(folder)
    return folder


@pytest.fixture(scope="module")
def model(tiny_base, tmp_path_factory) -> Path:
    """Return an untrained model with the right head, and a training.json beside it."""
    folder, task = tmp_path_factory.mktemp("trained") / "model", tasks.load("text_classification")
    import torch

    torch.manual_seed(1)
    task.build_model(tiny_base, spec_of(*LABELS)).save_pretrained(folder)
    task.load_tokenizer(tiny_base).save_pretrained(folder)
    ModelSpec(task="text_classification", labels=LABELS, max_length=32, unicode_form="NFC").write(folder)
    Training(
        settings={"method": "full"}, threads=1, device="cpu", precision="float32", parameters=1, steps=1, epochs=1, best_step=1,
        metric="macro_f1", best_value=0.1, stopped_by="epochs", resumed=0, seconds=1, examples_per_second=1, peak_memory_mib=1,
        weights_sha256="f" * 64,
    ).write(folder.parent)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def prepared(tickets, tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("prepared"), tickets)


@pytest.fixture(scope="module")
def evaluated(model, prepared, tmp_path_factory, tiny_base) -> Path:
    out = tmp_path_factory.mktemp("reports") / "evaluation"
    evaluate(model, prepared, tiny_base, out, task="text_classification", evaluate=PARAMS)
    return out


def test_all_output_files_are_written(evaluated):
    files = {path.relative_to(evaluated).as_posix() for path in evaluated.rglob("*") if path.is_file()}

    assert files == {
        "metrics.json",
        "scores.json",
        "confusion.csv",
        "reliability.csv",
        "classes.csv",
        *(f"predictions/{name}.parquet" for name in ("candidate", *TASK.baselines)),
    }


def test_metrics_identify_test_set_model_and_snapshot(evaluated, model):
    metrics = Metrics.read(evaluated)

    assert (metrics.test_digest, metrics.snapshot, metrics.model_digest) == ("test-digest", "snapshot-digest", digest_folder(model))
    assert (metrics.rows, metrics.groups) == (96, 32)
    assert set(metrics.headline) == {"accuracy", "macro_f1", "micro_f1", "weighted_f1"}
    assert set(metrics.baselines) == set(metrics.differences) == set(TASK.baselines)
    assert all("32 groups" in str(score.doubt) for score in metrics.headline.values())


def test_linear_model_beats_an_untrained_transformer(evaluated):
    metrics = Metrics.read(evaluated)

    assert metrics.baselines["tfidf"]["accuracy"].value > 0.95
    assert metrics.baselines["majority"]["accuracy"].value < 0.5
    assert metrics.differences["tfidf"]["macro_f1"].high < 0


def test_differences_are_candidate_minus_baseline(evaluated):
    metrics = Metrics.read(evaluated)

    for name in TASK.baselines:
        for metric, gain in metrics.differences[name].items():
            assert gain.value == pytest.approx(metrics.headline[metric].value - metrics.baselines[name][metric].value)


def test_baselines_are_compared_on_validation_rows(evaluated):
    metrics = Metrics.read(evaluated)

    assert list(metrics.validation) == list(TASK.baselines)
    assert metrics.validation["tfidf"]["macro_f1"] > 0.95 > metrics.validation["majority"]["macro_f1"]
    assert metrics.best_baseline("macro_f1") == "tfidf"


def test_scores_compare_with_the_best_baseline_of_each_metric(evaluated):
    metrics = Metrics.read(evaluated).model_copy(
        update={"validation": {"majority": {"accuracy": 0.9, "macro_f1": 0.1}, "tfidf": {"accuracy": 0.8, "macro_f1": 0.2}}}
    )

    scores = flatten(metrics)
    assert scores["accuracy_over_best"] == metrics.differences["majority"]["accuracy"].value
    assert scores["macro_f1_over_best"] == metrics.differences["tfidf"]["macro_f1"].value


def test_method_of_the_candidate_is_that_of_its_training(evaluated):
    assert Metrics.read(evaluated).method == "full"


def test_probe_is_not_compared_with_the_probe(evaluated):
    metrics = Metrics.read(evaluated).model_copy(
        update={"validation": {"tfidf": {"macro_f1": 0.2}, "probe": {"macro_f1": 0.3}}, "method": "probe"}
    )

    assert metrics.best_baseline("macro_f1") == "tfidf"


def test_predictions_are_ordered_and_match_probabilities(evaluated):
    for name in ("candidate", *TASK.baselines):
        predictions = Predictions.read(evaluated / "predictions" / f"{name}.parquet")

        assert predictions.ids.tolist() == sorted(predictions.ids.tolist())
        assert predictions.labels == LABELS
        assert predictions.probabilities.sum(axis=1) == pytest.approx(np.ones(96))
        assert predictions.predicted.tolist() == [LABELS[k] for k in predictions.probabilities.argmax(axis=1)]


def test_metrics_follow_from_the_predictions_file(evaluated, model, prepared):
    candidate, *others = (Predictions.read(evaluated / "predictions" / f"{name}.parquet") for name in ("candidate", *TASK.baselines))

    baselines, profile = dict(zip(TASK.baselines, others, strict=True)), Profile.read(prepared)
    written = Metrics.read(evaluated)
    computed = compute_metrics(TASK, candidate, baselines, profile, digest_folder(model), 10)
    assert computed == written.model_copy(update={"tables": (), "validation": {}, "method": ""})
    assert [table.title for table in written.tables] == ["Labels, the most common first"]  # tables of the task


def test_dvc_tables_have_one_row_per_example_and_class(evaluated):
    confusion, classes = pd.read_csv(evaluated / "confusion.csv"), pd.read_csv(evaluated / "classes.csv")

    assert confusion.columns.tolist() == ["expected", "predicted"]
    assert len(confusion) == 96
    assert classes["label"].tolist() == list(LABELS)
    assert classes["rows"].sum() == pd.read_csv(evaluated / "reliability.csv")["rows"].sum() == 96


def test_scores_are_flat_numbers(evaluated):
    scores = json.loads((evaluated / "scores.json").read_text())

    assert scores == flatten(Metrics.read(evaluated))
    assert scores["macro_f1_low"] <= scores["macro_f1"] <= scores["macro_f1_high"]
    assert all(isinstance(value, float) and "." not in name for name, value in scores.items())


def test_same_model_gives_the_same_bytes(evaluated, model, tickets, tmp_path, tiny_base):
    prepared = prepare(tmp_path / "prepared", tickets.sample(frac=1, random_state=3))
    out = tmp_path / "out"
    out.mkdir()
    (out / "stale.txt").write_text("left over")
    write_rows(tickets[tickets["group"].str[1:].astype(int) % 5 > 2], prepared / "learn" / "train.parquet")

    evaluate(model, prepared, tiny_base, out, task="text_classification", evaluate=PARAMS)

    assert digest_folder(out) == digest_folder(evaluated)


def test_model_with_other_labels_is_refused(model, tickets, tmp_path, tiny_base):
    rows = tickets.assign(label=tickets["label"].replace("device", "printer"))
    prepared = prepare(tmp_path / "prepared", rows, ("billing", "network", "printer"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("{}")

    with pytest.raises(BadModel, match=r"only the model has device, only the data has printer"):
        evaluate(model, prepared, tiny_base, tmp_path / "out", task="text_classification", evaluate=PARAMS)
    assert (tmp_path / "out" / "metrics.json").exists()


def test_empty_test_split_is_refused(model, prepared, tickets, tmp_path, tiny_base):
    folder = prepare(tmp_path / "prepared", tickets)
    write_rows(tickets.iloc[:0], folder / "test" / "test.parquet")

    with pytest.raises(BadData, match="no rows to evaluate on"):
        evaluate(model, folder, tiny_base, tmp_path / "out", task="text_classification", evaluate=PARAMS)


def test_missing_input_is_named(model, tmp_path, tiny_base):
    with pytest.raises(NotFound, match=r"profile\.json is missing"):
        evaluate(model, tmp_path, tiny_base, tmp_path / "out", task="text_classification", evaluate=PARAMS)


@pytest.mark.parametrize("change", [{"text": "! ?"}, {"label": "billing"}])
def test_baseline_falls_back_to_the_majority(change, tickets, caplog, tiny_base):
    with caplog.at_level(logging.WARNING):
        answers = predict_baselines(TASK, tickets.assign(**change), tickets, spec_of(*LABELS), tiny_base)

    assert answers["tfidf"].predicted == answers["majority"].predicted
    assert "equals the majority baseline" in caplog.text


def test_baseline_ignores_labels_without_training_rows(tickets, tiny_base):
    answers = predict_baselines(TASK, tickets[tickets["label"] != "device"], tickets, spec_of(*LABELS), tiny_base)

    for answer in answers.values():
        assert answer.probabilities[:, 1].max() < 0.01  # a linear probe has an output for it
        assert answer.probabilities.sum(axis=1) == pytest.approx(np.ones(240))


def test_dominating_group_is_reported(model, tickets, tmp_path, caplog, tiny_base):
    rows = tickets.assign(group=tickets["group"].mask(tickets["group"].str[1:].astype(int) % 5 == 0, "g00"))

    with caplog.at_level(logging.WARNING):
        evaluate(model, prepare(tmp_path / "prepared", rows), tiny_base, tmp_path / "out", task="text_classification", evaluate=PARAMS)

    assert "group g00 has 48 test rows" in caplog.text
