"""A workspace with the outputs of all stages and a two-layer model, without running a stage."""

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.lineage import Lineage
from components.artifacts.manifest import FilePart, SnapshotManifest
from components.artifacts.metrics import CalibrationBin, ClassScore, Estimate, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile, SplitProfile, TokenLengths
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import BestTrial
from components.artifacts.validation import Check, ValidationReport
from components.core.hashing import digest_file, digest_folder
from components.mlflow_store.tracking import prepare_store
from components.model import tasks
from tests.support.learn import spec_of

PARAMS = {"name": "tickets", "train": {"epochs": 1, "learning_rate": "tuned"}, "validate": {"labels": []}}
HISTORY = [{"step": step, "loss": 1.0 / step, "epoch": step / 10, "seconds": 0.5 * step} for step in range(1, 11)]


@functools.cache
def migrated() -> Path:
    """Return the folder of an empty store that tests copy; creating one takes four seconds, so each process creates one."""
    var = Path(tempfile.mkdtemp(prefix="retune-store-"))
    atexit.register(shutil.rmtree, var, ignore_errors=True)
    prepare_store(var)
    return var


def new_store(var: Path) -> str:
    """Create an empty MLflow store in `var` and return its URI."""
    var.mkdir(parents=True, exist_ok=True)
    for name in ("mlflow.db", "mlflow.db.head"):
        shutil.copyfile(migrated() / name, var / name)
    return prepare_store(var)


def estimate(value: float, half: float = 0.02) -> Estimate:
    """Return an estimate with the interval `value` ± `half`."""
    return Estimate(value=value, low=value - half, high=value + half, n=20, method="test")


def _make_model(base: Path, folder: Path, labels: tuple[str, ...], seed: int = 0) -> Path:
    """Save a classifier with an untrained head on the tiny base, in the layout of `train`."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(seed)
    model = tasks.load("text_classification").build_model(base, spec_of(*labels))
    with torch.no_grad():
        model.classifier.weight.mul_(20)  # so that answers differ between texts
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    ModelSpec(task="text_classification", labels=labels, max_length=64, unicode_form="NFC").write(folder)
    return folder


def make_finished(workspace: Path, base: Path, tickets: pd.DataFrame, seed: int = 0) -> Path:
    """Fill `workspace` with the outputs of every stage; another seed is another candidate on the same data."""
    labels = tuple(sorted(set(tickets["label"])))
    for folder in ("data/raw", "data/validated", "data/prepared/learn", "data/prepared/test", "models/tuned", "models/trained"):
        (workspace / folder).mkdir(parents=True, exist_ok=True)
    evaluation = workspace / "reports/evaluation"
    (evaluation / "predictions").mkdir(parents=True, exist_ok=True)
    train, test = tickets.iloc[60:], tickets.iloc[:60]
    pq.write_table(pa.Table.from_pandas(train, preserve_index=False), workspace / "data/prepared/learn/train.parquet")
    pq.write_table(pa.Table.from_pandas(test, preserve_index=False), workspace / "data/prepared/test/test.parquet")
    model = _make_model(base, workspace / "models/trained/model", labels, seed)
    probabilities = tasks.load("text_classification").predictor(model).probabilities(list(test["text"]))
    predicted = np.array(labels)[probabilities.argmax(axis=1)]
    columns = [test[name].to_numpy(dtype=np.str_) for name in ("id", "group", "label")]
    Predictions(*columns, predicted, probabilities, labels).write(evaluation / "predictions/candidate.parquet")
    write_records(workspace, labels)
    (workspace / "models/trained/history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in HISTORY))
    trials = [
        {
            "number": 0,
            "state": "COMPLETE",
            "value": 0.7,
            "params": json.dumps({"learning_rate": 1e-4}),
            "intermediate": json.dumps({"1": 0.5}),
        },
        {
            "number": 1,
            "state": "PRUNED",
            "value": None,
            "params": json.dumps({"learning_rate": 1e-3}),
            "intermediate": json.dumps({"1": 0.1}),
        },
    ]
    pq.write_table(pa.Table.from_pylist(trials), workspace / "models/tuned/trials.parquet")
    (workspace / "dvc.lock").write_text("schema: '2.0'\n")
    (workspace / "params.yaml").write_text("name: tickets\n")
    return workspace


def write_records(workspace: Path, labels: tuple[str, ...]) -> None:
    """Write the JSON records of all stages."""
    part = FilePart(name="part-0.parquet", sha256="0" * 64, bytes=1, rows=240)
    SnapshotManifest(
        source="tickets.csv",
        format="csv",
        rows=240,
        columns=("id", "group", "text", "label"),
        source_columns={},
        parts=(part,),
        digest="d" * 64,
        taken_at="2026-11-21T00:00:00+00:00",
    ).write(workspace / "data/raw")
    check = Check(name="rows", scope="suite", column=None, passed=True, expected=">= 100", observed="240", failures=0)
    ValidationReport(snapshot="d" * 64, accepted=True, rows_in=240, kept=240, quarantined=0, reasons={}, checks=(check,)).write(
        workspace / "data/validated"
    )
    split = SplitProfile(rows=60, groups=20, labels={label: 20 for label in labels})
    tokens = TokenLengths(max_length=64, mean=9, quantiles={"p50": 9}, histogram=((8, 240),), cut_rows=0, cut_share=0, cut_token_share=0)
    Profile(
        snapshot="d" * 64,
        rows_in=240,
        kept=240,
        exact_duplicates=0,
        near_duplicates=0,
        conflicting=0,
        labels=labels,
        splits={"test": split},
        tokens=tokens,
        test_digest="e" * 64,
        learn_digest="f" * 64,
        warnings=(),
    ).write(workspace / "data/prepared")
    BestTrial(
        study="s",
        number=0,
        metric="macro_f1",
        value=0.7,
        settings={"learning_rate": 1e-4},
        complete=1,
        pruned=1,
        failed=0,
        seconds=1,
        importance={"learning_rate": 1.0},
        stopped_by="trials",
    ).write(workspace / "models/tuned")
    Training(
        settings={"epochs": 1},
        threads=1,
        device="cpu",
        precision="float32",
        parameters=100,
        steps=10,
        epochs=1,
        best_step=10,
        metric="macro_f1",
        best_value=0.7,
        stopped_by="epochs",
        resumed=0,
        seconds=1,
        examples_per_second=100,
        peak_memory_mib=100,
        weights_sha256=digest_file(workspace / "models/trained/model/model.safetensors"),
    ).write(workspace / "models/trained")
    Metrics(
        rows=60,
        groups=20,
        test_digest="e" * 64,
        snapshot="d" * 64,
        model_digest=digest_folder(workspace / "models/trained/model"),
        headline={"macro_f1": estimate(0.7), "accuracy": estimate(0.72)},
        baselines={"tfidf": {"macro_f1": estimate(0.6)}},
        differences={"tfidf": {"macro_f1": estimate(0.1)}},
        classes={label: ClassScore(precision=0.7, recall=0.7, f1=0.7, rows=20, groups=7, eligible=True) for label in labels},
        left_out=(),
        brier=estimate(0.3),
        ece=0.05,
        ece_debiased=0.04,
        reliability=(CalibrationBin(confidence=0.5, accuracy=0.5, rows=60),),
    ).write(workspace / "reports/evaluation")


LINEAGE = Lineage(
    model="tickets",
    candidate="c" * 64,
    git_commit="0123456789abcdef",
    dirty=0,
    data_digest="d" * 64,
    base_source="test",
    base_digest="b" * 64,
    hashes={"models/trained": "0" * 32},
    flow_run=None,
    python="3.11",
    packages={"torch": "2.13.0"},
)
