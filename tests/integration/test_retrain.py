"""The whole pipeline on tiny data, as a user runs it: real DVC, real MLflow, real SQLite; inline, so without Prefect."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support.project import dvc, edit, git, make_project, retune, status

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project after its first run, committed as its user would."""
    folder = make_project(tmp_path_factory.mktemp("finished") / "project", tiny_base, tickets, tuned=True)
    done = retune(folder, "run", "--inline", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["outcome"], result["version"], result["champion"], result["promoted"]) == ("PASS", 1, 1, True)
    assert "</html>" in (folder / "reports/index.html").read_text(encoding="utf-8")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "trained")
    return folder


def splits(folder: Path) -> dict[str, str]:
    files = {"train": "learn/train", "validation": "learn/validation", "test": "test/test"}
    frames = {split: pd.read_parquet(folder / f"data/prepared/{file}.parquet") for split, file in files.items()}
    return {row: split for split, frame in frames.items() for row in frame["id"]}


def trained_at(folder: Path) -> int:
    return (folder / "models/trained/model/model.safetensors").stat().st_mtime_ns


def test_status_shows_metrics_and_verdict(finished: Path) -> None:
    state = status(finished)

    assert (state["model"], state["version"], state["alias"], state["verdict"]) == ("tickets", 1, "champion", "PASS")
    assert state["metrics"]["macro_f1"]["low"] <= state["metrics"]["macro_f1"]["value"] <= state["metrics"]["macro_f1"]["high"]
    assert len(state["run_key"]) == 64


def test_champion_predicts_raw_text(finished: Path) -> None:
    done = retune(finished, "predict", "the refund of my invoice payment", "--json")

    (answer,) = json.loads(done.stdout)
    assert answer["label"] == "billing"
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_version_predicts_with_its_own_inputs(finished: Path) -> None:
    before = (finished / "params.yaml").read_text(encoding="utf-8")
    edit(finished, {"task_options": {"pair": True}})
    try:
        done = retune(finished, "predict", "the refund of my invoice payment", "--json")
    finally:
        (finished / "params.yaml").write_text(before, encoding="utf-8")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["label"] == "billing"


def test_clean_clone_pulls_and_reruns_nothing(finished: Path, tmp_path: Path) -> None:
    assert dvc(finished, "push").returncode == 0
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(finished), str(clone))
    assert dvc(clone, "remote", "modify", "--local", "local", "url", str(finished / "var/dvc-remote")).returncode == 0
    pulled = dvc(clone, "pull")
    assert pulled.returncode == 0, pulled.stderr

    again = dvc(clone, "repro")

    assert again.returncode == 0, again.stderr
    assert again.stdout.count("didn't change, skipping") >= 5
    assert "Running stage" not in again.stdout
    assert git(clone, "status", "--porcelain") == ""


def test_dvc_commands_work(finished: Path) -> None:
    metrics = json.loads(dvc(finished, "metrics", "show", "--json").stdout)
    scores = metrics[""]["data"]["reports/evaluation/scores.json"]["data"]
    assert 0 < scores["macro_f1_low"] <= scores["macro_f1"] <= 1
    assert "evaluate" in dvc(finished, "dag").stdout
    plots = dvc(finished, "plots", "show")
    assert plots.returncode == 0, plots.stderr
    assert dvc(finished, "metrics", "diff").returncode == 0


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("model/tasks/causal_lm/__init__.py", set()),  # the project's task is text_classification
        ("model/tasks/token_classification/crf.py", set()),
        ("model/tasks/text_classification/__init__.py", {"validate", "preprocess", "tune", "train", "evaluate"}),
        ("model/methods/lora.py", {"tune", "train"}),
        ("gates/champion.py", set()),
    ],
)
def test_edit_reruns_only_the_stages_that_load_the_file(finished: Path, file: str, stages: set[str]) -> None:
    path = finished / "components" / file
    before = path.read_text(encoding="utf-8")
    path.write_text(before + "\n# edited\n", encoding="utf-8")
    try:
        changed = json.loads(dvc(finished, "status", "--json").stdout)
    finally:
        path.write_text(before, encoding="utf-8")

    assert set(changed) == stages


@pytest.mark.exhaustive
def test_dvc_experiment_changes_a_setting(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)  # no effect runs here, so MLflow's absolute paths do not matter
    done = dvc(copy, "exp", "run", "-S", "train.learning_rate=1e-4")

    assert done.returncode == 0, done.stdout + done.stderr
    training = json.loads((copy / "models/trained/training.json").read_text(encoding="utf-8"))
    assert training["settings"]["learning_rate"] == 1e-4


@pytest.mark.exhaustive
def test_another_params_file_gets_its_own_workspace(finished: Path, tmp_path: Path, tickets: pd.DataFrame) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    renamed = tickets.drop(columns="group").rename(columns={"text": "what", "label": "topic", "id": "number"})
    renamed.to_json(other / "mine.jsonl", orient="records", lines=True)
    shutil.copytree(finished / "base-model", other / "base-model")
    shutil.copy(finished / "params.yaml", other / "params.yaml")
    columns = {"text": "what", "label": "topic", "id": "number"}
    edit(other, {"name": "mine", "snapshot": {"source": "mine.jsonl", "columns": columns}})

    done = retune(finished, "run", "--inline", "--json", "--params", str(other / "params.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["model"] == "mine"
    assert status(finished, "--params", str(other / "params.yaml"))["version"] == 1
    assert status(finished)["model"] == "tickets"
    assert not (other / "data").exists()


def test_doctor_reports_no_fault(finished: Path) -> None:
    done = retune(finished, "doctor")

    lines = [line for line in done.stdout.splitlines() if not line.startswith(("ok   disk", "ok   memory", "FIX  disk", "FIX  memory"))]
    assert len(lines) >= 11
    assert all(line.startswith("ok ") for line in lines), done.stdout


def test_promote_of_unknown_version_lists_the_known_ones(finished: Path) -> None:
    done = retune(finished, "promote", "tickets", "7")

    assert done.returncode == 1
    assert "tickets has no version 7; there are: 1" in done.stderr


@pytest.mark.exhaustive
def test_later_runs_rerun_only_what_changed(finished: Path, tickets: pd.DataFrame) -> None:
    """Must be the last test: it changes the project that the others read."""
    folder, before, trained = finished, splits(finished), trained_at(finished)
    again = json.loads(retune(folder, "run", "--inline", "--json").stdout)
    assert (again["up_to_date"], again["version"]) == (True, 1)
    assert trained_at(folder) == trained

    edit(folder, {"gates": {"floor": {"at_least": 0.999999}}})
    judged = json.loads(retune(folder, "run", "--inline", "--json").stdout)
    assert judged["outcome"] != "PASS"
    assert (judged["up_to_date"], judged["champion"], judged["version"]) == (False, 1, 1)
    assert trained_at(folder) == trained

    edit(folder, {"gates": {"floor": {"at_least": 0.4}}})
    more = tickets.assign(id="n" + tickets["id"], text=tickets["text"] + " again").head(60)
    pd.concat([tickets.sample(frac=1, random_state=3), more]).drop(columns="group").to_csv(folder / "tickets.csv", index=False)
    challenged = retune(folder, "run", "--inline", "--json")
    assert challenged.returncode == 0, challenged.stderr
    assert json.loads(challenged.stdout)["version"] == 2
    after = splits(folder)
    common = before.keys() & after.keys()
    assert len(common) > 200
    assert {row: after[row] for row in common} == {row: before[row] for row in common}
    verdict = json.loads((folder / "reports/verdict.json").read_text(encoding="utf-8"))
    assert verdict["champion"] == "1"
    (scored,) = (folder / "var/predictions/tickets").glob("*.parquet")
    assert (
        pd.read_parquet(scored)["id"].tolist()
        == pd.read_parquet(folder / "reports/evaluation/predictions/candidate.parquet")["id"].tolist()
    )
    assert trained_at(folder) != trained
