import json
import shutil
import sqlite3
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import mlflow.data
import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.manifest import SnapshotManifest
from components.core.errors import NotFound, RetuneError, Unavailable
from components.mlflow_store.connection import params_of, upload
from components.mlflow_store.tracking import close_orphaned_runs, follow, prepare_store, record, run_key, runs
from tests.support.finished import HISTORY, LINEAGE, PARAMS, make_finished, migrated, new_store
from tests.support.leaderboards import leaderboard


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return new_store(tmp_path / "var")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_finished(tmp_path_factory.mktemp("finished"), tiny_base, tickets)


def all_runs(uri: str) -> list:
    client = MlflowClient(uri)
    return list(runs.search(client, [experiment.experiment_id for experiment in client.search_experiments()], ""))


def by_name(uri: str) -> dict:
    return {run.info.run_name: run for run in all_runs(uri)}


def test_store_at_head_is_not_migrated(uri: str, tmp_path: Path) -> None:
    database = tmp_path / "var/mlflow.db"
    written = database.stat().st_mtime_ns

    assert prepare_store(tmp_path / "var") == uri == f"sqlite:///{database}"
    assert database.stat().st_mtime_ns == written


def test_default_experiment_stores_artifacts_in_var(uri: str) -> None:
    assert MlflowClient(uri).get_experiment("0").artifact_location.startswith((migrated() / "mlartifacts").as_uri())


def test_invalid_database_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database at all" * 100)

    with pytest.raises(RetuneError, match=r"mlflow\.db is damaged .*move it away"):
        prepare_store(tmp_path)


def test_database_of_another_program_is_rejected(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("create table mine (a)")
    connection.close()

    with pytest.raises(RetuneError, match="not MLflow's"):
        prepare_store(tmp_path)


def test_reading_does_not_create_a_store(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="retune run"):
        close_orphaned_runs(f"sqlite:///{tmp_path}/mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.exhaustive
def test_eight_processes_can_create_a_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlflow import MlflowClient; from components.mlflow_store.tracking import prepare_store;"
        "client = MlflowClient(prepare_store(Path(sys.argv[1]))); client.create_run('0')"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(8)]

    assert [(child.communicate(timeout=300)[1], child.returncode)[1] for child in children] == [0] * 8
    assert len(MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"])) == 8
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()


def test_candidate_run_has_children_for_stages_and_trials(uri: str, finished: Path) -> None:
    recorded = record(finished, uri, lineage=LINEAGE, params=PARAMS)

    assert recorded.created
    run_of = by_name(uri)
    assert set(run_of) == {"tickets", "validate", "preprocess", "tune", "train", "evaluate", "trial 0", "trial 1"}
    parent = run_of["tickets"]
    assert parent.info.run_id == recorded.run_id
    assert parent.data.tags[runs.KEY] == recorded.key == run_key(finished)
    assert parent.data.tags[runs.COMPLETE] == "true"
    assert parent.data.tags["retune.dvc.models/trained"] == "0" * 32
    assert parent.data.params["train.learning_rate"] == "tuned"
    assert (parent.data.metrics["macro_f1_low"], parent.data.metrics["macro_f1"]) == (pytest.approx(0.68), 0.7)
    assert {run_of[name].data.tags[runs.PARENT] for name in ("validate", "train")} == {recorded.run_id}
    assert {run_of[name].data.tags[runs.PARENT] for name in ("trial 0", "trial 1")} == {run_of["tune"].info.run_id}
    assert (run_of["trial 0"].info.status, run_of["trial 1"].info.status) == ("FINISHED", "KILLED")
    history = MlflowClient(uri).get_metric_history(run_of["train"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(row["step"], row["loss"]) for row in HISTORY]
    assert [later.timestamp - point.timestamp for point, later in pairwise(history)] == pytest.approx([500] * 9, abs=1)


def test_candidates_of_a_leaderboard_are_child_runs(uri: str, mixed: Path) -> None:
    board = leaderboard()
    board.write(mixed / "models/tuned")
    record(mixed, uri, lineage=LINEAGE, params=PARAMS)

    run_of = by_name(uri)
    assert {entry.name for entry in board.candidates} <= set(run_of)
    assert "trial 0" not in run_of
    winner, failed = run_of["lora, rank 16"], run_of["full, batch 64"]
    assert winner.data.metrics.items() >= {"score": 0.548, "low": 0.498, "high": 0.598, "seconds": 30.0, "share": 0.1}.items()
    assert winner.data.params.items() >= {"method": "lora", "base": "model", "task_options.pooling": "mean"}.items()
    assert (winner.data.tags["retune.winner"], winner.data.tags["retune.state"]) == ("true", "complete")
    assert (failed.info.status, failed.data.tags["retune.reason"]) == ("FAILED", "ran out of memory with a batch of 1")
    assert run_of["tune"].data.metrics["optimism_low"] == pytest.approx(-0.004)
    assert run_of["tune"].data.params["winner"] == "lora, rank 16"


def test_candidate_keeps_the_steps_of_its_trial(uri: str, mixed: Path) -> None:
    leaderboard().write(mixed / "models/tuned")
    record(mixed, uri, lineage=LINEAGE, params=PARAMS)

    assert by_name(uri)["probe"].data.metrics["intermediate"] == pytest.approx(0.5)


@pytest.fixture
def mixed(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workspace, for mixing in files of another run."""
    return shutil.copytree(finished, tmp_path / "mixed")


def test_new_weights_with_old_evaluation_are_rejected(uri: str, mixed: Path) -> None:
    weights = mixed / "models/trained/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(NotFound, match=r"belongs to another model than .*models/trained/model: run `dvc repro`"):
        run_key(mixed)
    with pytest.raises(NotFound, match="belongs to another model"):
        record(mixed, uri, lineage=LINEAGE, params=PARAMS)
    assert all_runs(uri) == []


def test_evaluation_of_another_snapshot_is_rejected(uri: str, mixed: Path) -> None:
    newer = SnapshotManifest.read(mixed / "data/raw").model_copy(update={"digest": "n" * 64})
    newer.write(mixed / "data/raw")

    with pytest.raises(NotFound, match=r"belongs to another snapshot than .*data/raw: run `dvc repro`"):
        record(mixed, uri, lineage=LINEAGE, params=PARAMS)
    assert all_runs(uri) == []


def test_datasets_of_a_run_have_our_digests(uri: str, finished: Path) -> None:
    recorded = record(finished, uri, lineage=LINEAGE, params=PARAMS)

    inputs = MlflowClient(uri).get_run(recorded.run_id).inputs.dataset_inputs
    digests = {entry.tags[0].value if len(entry.tags) == 1 else entry.dataset.name: entry.dataset.digest for entry in inputs}
    assert digests == {"tickets-snapshot": "d" * 32, "tickets-training": "f" * 32, "tickets-test": "e" * 32}
    assert {mlflow.data.get_source(entry).to_dict()["uri"].rpartition("/")[2] for entry in inputs} == {
        "tickets.csv",
        "train.parquet",
        "test.parquet",
    }


def test_recording_twice_creates_one_run(uri: str, finished: Path) -> None:
    first = record(finished, uri, lineage=LINEAGE, params=PARAMS)
    count = len(all_runs(uri))

    second = record(finished, uri, lineage=LINEAGE, params=PARAMS)

    assert (second.run_id, second.created) == (first.run_id, False)
    assert len(all_runs(uri)) == count


def test_artifacts_contain_the_inputs_of_a_rebuild(uri: str, finished: Path, tmp_path: Path) -> None:
    recorded = record(finished, uri, lineage=LINEAGE.model_copy(update={"dirty": 2}), params=PARAMS)

    stored = Path(MlflowClient(uri).download_artifacts(recorded.run_id, "", str(tmp_path)))
    names = {path.relative_to(stored).as_posix() for path in stored.rglob("*") if path.is_file()}
    assert names >= {"dvc.lock", "params.yaml", "evaluation/metrics.json", "evaluation/predictions/candidate.parquet", "uncommitted.diff"}


def test_failed_recording_is_marked_and_repeated(uri: str, finished: Path, mixed: Path) -> None:
    (mixed / "data/prepared/test/test.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        record(mixed, uri, lineage=LINEAGE, params=PARAMS)
    assert by_name(uri)["tickets"].info.status == "FAILED"

    assert record(finished, uri, lineage=LINEAGE, params=PARAMS).created
    assert len(all_runs(uri)) == 8


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_recording_is_replaced(uri: str, finished: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from components.mlflow_store.tracking import record;"
        "import components.mlflow_store.tracking.record; module = sys.modules['components.mlflow_store.tracking.record'];"
        "module.add_trials = lambda *a: os.kill(os.getpid(), 9);"
        "from tests.support.finished import LINEAGE, PARAMS;"
        "record(Path(sys.argv[1]), sys.argv[2], lineage=LINEAGE, params=PARAMS)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(finished), uri], capture_output=True, text=True, timeout=300)
    assert killed.returncode == -9, killed.stderr
    assert by_name(uri)["tickets"].info.status == "RUNNING"

    assert close_orphaned_runs(uri) == 2  # the parent and the open stage
    recorded = record(finished, uri, lineage=LINEAGE, params=PARAMS)

    assert recorded.created
    parents = [run for run in all_runs(uri) if run.data.tags[runs.KIND] == "candidate"]
    assert [(run.info.run_id, run.data.tags[runs.COMPLETE]) for run in parents] == [(recorded.run_id, "true")]
    assert len(all_runs(uri)) == 8
    assert close_orphaned_runs(uri) == 0


def test_truncated_upload_is_detected(uri: str, tmp_path: Path) -> None:
    class TruncatingClient(MlflowClient):
        def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
            super().log_artifacts(run_id, local_dir, artifact_path)
            stored = Path(self.get_run(run_id).info.artifact_uri.removeprefix("file://"))
            (stored / "metrics.json").write_text("{")

    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "metrics.json").write_text("{}")
    client = TruncatingClient(uri)
    run_id = client.create_run(client.create_experiment("x", tmp_path.as_uri())).info.run_id

    with pytest.raises(Unavailable, match=r"1 of 1 artifacts are missing or damaged, first metrics\.json"):
        upload(client, run_id, tmp_path / "sent")


def test_long_param_is_recorded_by_its_hash() -> None:
    (param,) = params_of({"labels": ["x" * 100] * 100})

    assert param.value.startswith("10400 characters, sha256 ")


def test_non_finite_metric_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    from components.mlflow_store.connection import metrics_of

    assert [metric.key for metric in metrics_of({"a": 1.0, "b": float("inf"), "c": float("nan")})] == ["a"]
    assert "b, c" in caplog.text


def test_run_of_living_process_stays_running(uri: str) -> None:
    client = MlflowClient(uri)
    run_id = runs.start(client, "0", "mine", "live", {})

    assert close_orphaned_runs(uri) == 0
    assert client.get_run(run_id).info.status == "RUNNING"


def test_exclusive_holder_closes_runs_of_other_hosts(uri: str) -> None:
    client = MlflowClient(uri)
    run_id = runs.start(client, "0", "mine", "live", {})
    own_process = json.loads(client.get_run(run_id).data.tags[runs.OWNER])
    client.set_tag(run_id, runs.OWNER, json.dumps(own_process | {"host": "worker-1-of-yesterday"}))

    assert close_orphaned_runs(uri) == 0
    assert close_orphaned_runs(uri, exclusive=True) == 1
    assert client.get_run(run_id).info.status == "KILLED"


def append(path: Path, rows: list[dict]) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def until(seconds: float, condition) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_live_run_becomes_the_train_child(uri: str, finished: Path, tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    history.write_text('{"step": 1, "loss": 99}\n')  # of an earlier training; DVC removes it
    with follow(history, uri, "tickets", seconds=0.05) as followed:
        history.unlink()
        append(history, HISTORY[:2])
        time.sleep(0.3)
        append(history, HISTORY[2:4])
        assert until(20, lambda: followed.run_id is not None)
        run = MlflowClient(uri).get_run(followed.run_id)
        assert run.info.status == "RUNNING"
        append(history, HISTORY[4:])
    assert [p.step for p in MlflowClient(uri).get_metric_history(followed.run_id, "loss")] == [row["step"] for row in HISTORY]

    record(finished, uri, lineage=LINEAGE, params=PARAMS)

    assert by_name(uri)["train"].info.run_id == followed.run_id
    assert len(all_runs(uri)) == 8
    assert len(MlflowClient(uri).get_metric_history(followed.run_id, "loss")) == len(HISTORY)


def test_history_from_cache_starts_no_live_run(uri: str, tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    with follow(history, uri, "tickets", seconds=0.05) as followed:
        append(history, HISTORY)
        time.sleep(0.3)

    assert followed.run_id is None
    assert all_runs(uri) == []


def test_failed_training_marks_the_live_run(uri: str, tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"

    def train() -> None:
        with follow(history, uri, "tickets", seconds=0.05) as followed:
            append(history, HISTORY[:1])
            time.sleep(0.2)
            append(history, HISTORY[1:2])
            assert until(20, lambda: followed.run_id is not None)
            raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        train()
    assert by_name(uri)["train (live)"].info.status == "FAILED"


def test_missing_store_does_not_stop_a_training(tmp_path: Path) -> None:
    history = tmp_path / "history.jsonl"
    with follow(history, f"sqlite:///{tmp_path}/none.db", "tickets", seconds=0.05) as followed:
        append(history, HISTORY[:1])
        time.sleep(0.2)
        append(history, HISTORY[1:2])
        time.sleep(0.2)

    assert followed.run_id is None
