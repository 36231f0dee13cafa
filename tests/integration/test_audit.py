"""Audit commands on a model with three versions: the champion, a rejected one, and one without a verdict."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.core.errors import BadInput, NotFound, RetuneError, Unavailable
from components.core.hashing import digest_file
from flows.audit.worktree import fetch_inputs, prepare_worktree
from flows.cli import app
from flows.dvc_adapter.cache import cached_folder
from flows.dvc_adapter.config import cache_folder
from flows.dvc_adapter.lock import lock_hashes
from tests.support.project import dvc, edit, git, make_project, retune

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]  # the fixture of the first test runs the pipeline three times


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """Version 1 is the champion; 2, with other rows, was rejected; 3 has the rows of 2 and a quarantined one."""
    folder = make_project(tmp_path_factory.mktemp("audited") / "project", tiny_base, tickets, tuned=True)
    first = retune(folder, "run", "--inline", "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    assert json.loads(first.stdout)["promoted"], first.stdout

    more = tickets.assign(id="n" + tickets["id"], text=tickets["text"] + " again").head(60)
    rows = pd.concat([tickets.drop(index=5), more]).drop(columns="group")
    rows.loc[rows["id"] == "t010", "label"] = "device"
    rows.loc[rows["id"] == "t011", "text"] = "my router is offline and the signal is slow today"
    rows.to_csv(folder / "tickets.csv", index=False)
    edit(folder, {"gates": {"floor": {"at_least": 0.999999}}, "train": {"epochs": 3}})
    second = retune(folder, "run", "--inline", "--json")
    assert second.returncode == 0, second.stdout + second.stderr
    assert json.loads(second.stdout)["outcome"] == "FAIL", second.stdout

    edit(folder, {"gates": {"floor": {"at_least": 0.4}}})
    pd.concat([rows, pd.DataFrame([{"id": "empty", "text": "", "label": "billing"}])]).to_csv(folder / "tickets.csv", index=False)
    for step in (retune(folder, "snapshot"), dvc(folder, "repro"), retune(folder, "register")):
        assert step.returncode == 0, step.stdout + step.stderr
    return folder


@pytest.fixture(autouse=True)
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def invoke(*arguments: str) -> Result:
    """Run a command in this process, and raise its exception."""
    result = CliRunner(env={"NO_COLOR": "1", "TERM": "dumb"}).invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def read_json(*arguments: str) -> Any:
    """Return the JSON output of a command."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def uri(project: Path) -> str:
    return f"sqlite:///{project}/var/mlflow.db"


def test_history_shows_promotions() -> None:
    (promotion,) = read_json("history", "tickets")
    everything = read_json("history", "tickets", "--all")

    assert (promotion["action"], promotion["version"], promotion["previous"], promotion["verdict"]) == ("promoted", 1, None, "PASS")
    assert promotion["why"]
    assert [(event["action"], event["version"]) for event in everything] == [("promoted", 1), ("rejected", 2), ("registered", 3)]
    assert "gates.floor.at_least" in everything[1]["why"]
    assert len(invoke("history", "tickets", "--all").stdout.splitlines()) == 4


def test_champion_is_known_for_every_time() -> None:
    now = read_json("champion", "tickets")

    assert (now["version"], now["agrees"], now["registered"], now["until"]) == (1, True, True, None)
    assert read_json("champion", "--at", datetime.now(UTC).isoformat())["version"] == 1
    with pytest.raises(NotFound, match="the first was version 1"):
        invoke("champion", "tickets", "--at", "2026-01-01")
    with pytest.raises(BadInput, match="is not a valid time"):
        invoke("champion", "tickets", "--at", "last week")
    with pytest.raises(BadInput, match="is in the future"):
        invoke("champion", "tickets", "--at", (datetime.now(UTC) + timedelta(days=1)).isoformat())


def test_why_shows_the_evidence_of_a_verdict() -> None:
    evidence = read_json("why", "tickets", "2")
    floor = next(gate for gate in evidence["gates"] if gate["gate"] == "floor")

    assert (evidence["version"], evidence["outcome"], evidence["champion"]) == (2, "FAIL", "1")
    assert floor["outcome"] == "FAIL"
    assert floor["low"] <= floor["estimate"] <= floor["high"] < floor["threshold"] == 0.999999
    output = invoke("why", "tickets", "2").stdout
    assert all(gate["gate"] in output and gate["reason"] in output for gate in evidence["gates"])
    assert [gate["gate"] for gate in read_json("why", "tickets", "2", "--gate", "floor")["gates"]] == ["floor"]
    assert read_json("why", "1")["evidence"] == read_json("history")[0]["evidence"]
    with pytest.raises(NotFound, match="no gate 'flor'; did you mean 'floor'"):
        invoke("why", "tickets", "2", "--gate", "flor")
    with pytest.raises(NotFound, match="it was not judged"):
        invoke("why", "tickets", "3")


def test_diff_lists_changed_answers_settings_and_rows(project: Path) -> None:
    diff = read_json("diff", "tickets", "1", "2")
    scores, data = diff["scores"], diff["data"]

    assert scores["rows"] == len(scores["fixed"]) + len(scores["broken"]) + scores["both_right"] + scores["both_wrong"]
    assert all(row["after"] == row["expected"] != row["before"] and row["text"] for row in scores["fixed"])
    gain = (len(scores["fixed"]) - len(scores["broken"])) / scores["rows"]
    assert scores["differences"]["accuracy"]["value"] == pytest.approx(gain)
    right = len(scores["fixed"]) + scores["both_right"]
    assert scores["after"]["accuracy"]["value"] == pytest.approx(right / scores["rows"])
    assert scores["rows"] == 54  # of 61 test rows: seven are (nearly) training rows of version 1
    assert diff["params"]["train.epochs"] == [4, 3]
    assert (len(data["added"]), data["removed"], data["reworded"], data["relabelled"]) == (60, ["t005"], ["t011"], ["t010"])
    output = invoke("diff", "tickets", "1", "2").stdout
    assert f"fixed {len(scores['fixed'])} / broke {len(scores['broken'])}" in output
    assert "train.epochs: 4 → 3" in output


def test_lineage_shows_code_data_and_run(project: Path) -> None:
    trail = read_json("lineage", "tickets", "1")

    assert trail["git_commit"] == git(project, "rev-parse", "HEAD").strip()
    assert (trail["data"]["rows"], trail["data"]["source"], trail["lost"]) == (240, "tickets.csv", [])
    assert trail["machine"] == {"device": "cpu", "precision": "float32", "threads": 1}
    assert trail["tuned"].keys() == {"learning_rate"}
    assert [(promotion["action"], promotion["previous"]) for promotion in trail["promotions"]] == [("promoted", None)]
    assert read_json("lineage", "tickets", "2")["promotions"] == []
    assert "was never champion" in invoke("lineage", "tickets", "2").stdout


def test_lineage_finds_versions_of_a_snapshot_and_a_row() -> None:
    digest = read_json("lineage", "tickets", "2")["data"]["digest"]

    def versions_with(query: str) -> dict[int, list[str]]:
        return {seen["version"]: seen["as_what"] for seen in read_json("lineage", "tickets", "--data", query)["seen"]}

    assert versions_with(digest[:12]) == {2: ["snapshot"]}
    assert versions_with("t005").keys() == {1}
    assert versions_with("nt000").keys() == {2, 3}
    assert versions_with("t000").keys() == {1, 2, 3}
    assert versions_with("empty") == {3: versions_with("empty")[3]}
    assert versions_with("empty")[3][0].startswith("quarantined")
    assert versions_with("no such row") == {}
    assert invoke("lineage", "tickets").exit_code == 2


def test_status_reports_budget_and_moved_alias(project: Path) -> None:
    good = read_json("status")["standing"]
    assert (good["ledger"], good["fault"], good["waiting"], good["looks_used"]) == (1, None, [], 2)  # the two test sets share rows
    MlflowClient(uri(project)).set_registered_model_alias("tickets", "champion", "2")

    try:
        assert (
            "points to version 2, but the ledger records version 1: fix it with `retune reconcile tickets`"
            in read_json("status")["standing"]["fault"]
        )
        assert "retune reconcile tickets" in invoke("champion", "tickets").stdout
    finally:
        assert invoke("reconcile", "tickets").exit_code == 0
    assert read_json("status")["standing"]["fault"] is None


def test_missing_ledger_is_reported_and_blocks_prune(project: Path) -> None:
    files = list((project / "var").glob("ledger.db*"))
    for path in files:
        path.rename(path.with_name("away-" + path.name))
    try:
        for command in (["history", "tickets"], ["champion", "tickets"], ["prune", "--keep", "0", "--yes"]):
            with pytest.raises(NotFound, match=r"ledger\.db is missing, but the alias champion of tickets points to version 1"):
                invoke(*command)
        assert "is missing: restore a copy; without one, `retune reconcile --accept --why TEXT`" in read_json("status")["standing"]["fault"]
    finally:
        for path in files:
            path.with_name("away-" + path.name).rename(path)


@pytest.mark.parametrize(
    "command",
    [["history"], ["champion"], ["why", "1"], ["diff", "1", "2"], ["lineage", "1"], ["rebuild", "1"], ["prune", "--keep", "1"]],
    ids=lambda command: command[0],
)
def test_unknown_model_name_lists_the_known_ones(command: list[str]) -> None:
    with pytest.raises(NotFound, match=r"no model 'tikets' is registered in .*; did you mean 'tickets'"):
        invoke(command[0], "tikets", *command[1:])


@pytest.mark.parametrize("command", [["why", "9"], ["diff", "1", "9"], ["lineage", "9"], ["rebuild", "9"]], ids=lambda command: command[0])
def test_unknown_version_lists_the_known_ones(command: list[str]) -> None:
    with pytest.raises(NotFound, match="tickets has no version 9; there are: 1, 2, 3"):
        invoke(command[0], "tickets", *command[1:])


def test_missing_or_damaged_registry_is_reported(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("components", "flows"):
        (tmp_path / name).mkdir()
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"mlflow\.db is missing: no run has been recorded here"):
        invoke("history", "tickets")
    (tmp_path / "var").mkdir()
    (tmp_path / "var/mlflow.db").write_bytes(b"no database" * 1_000)
    with pytest.raises(RetuneError, match=r"mlflow\.db is damaged"):
        invoke("history", "tickets")


def objects(project: Path) -> set[Path]:
    return {path for path in (cache_folder(project) / "files/md5").rglob("*") if path.is_file()}


def test_prune_deletes_only_unreachable_versions(project: Path, tmp_path: Path) -> None:
    client = MlflowClient(uri(project))
    doomed, champion = (json.loads(client.get_model_version("tickets", number).tags["retune.dvc_lock"]) for number in "21")
    run = client.get_model_version("tickets", "2").run_id
    before = objects(project)
    abandoned, young = project / "var/checkpoints/abandoned", project / "var/checkpoints/young"
    for folder in (abandoned, young):
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(b"x" * 1_000)
    for path in (abandoned / "weights", abandoned):
        os.utime(path, (time.time() - 30 * 86_400,) * 2)

    plan = read_json("prune", "tickets", "--keep", "1")
    assert plan["kept"]["tickets"] == {"1": "is champion", "3": "is challenger"}
    assert {thing["name"] for thing in plan["things"] if thing["kind"] in ("version", "checkpoints")} == {"tickets 2", "abandoned"}
    assert all(total["bytes"] > 0 for total in plan["totals"].values())
    assert objects(project) == before  # a dry run

    assert "nothing was deleted; pass --yes to delete" in invoke("prune", "tickets", "--keep", "1").stdout

    done = read_json("prune", "tickets", "--keep", "1", "--yes")
    assert (done["deleted"], done["totals"]) == (True, plan["totals"])
    assert sorted(int(version.version) for version in client.search_model_versions("name='tickets'")) == [1, 3]
    assert client.get_run(run).info.lifecycle_stage == "deleted"
    assert not Path(client.get_run(run).info.artifact_uri.removeprefix("file://")).exists()
    assert not any(doomed["data/raw"][2:] in str(path) for path in objects(project))
    assert (abandoned.exists(), young.exists()) == (False, True)
    for digest in (
        champion["data/raw"],
        champion["models/trained"],
        lock_hashes(project)["models/trained"],
        lock_hashes(project)["data/raw"],
    ):
        cached_folder(project, digest, tmp_path / digest)
    assert read_json("prune", "--keep", "1")["things"] == []
    assert [(event["action"], event["version"]) for event in read_json("history", "tickets", "--all")] == [
        ("promoted", 1),
        ("registered", 3),
    ]
    shutil.rmtree(young)


def test_nothing_is_pruned_during_a_run(project: Path) -> None:
    import fcntl

    with (project / "var/run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another run uses"):
            invoke("prune", "--keep", "0", "--yes")


def state(project: Path) -> dict[str, str]:
    """Return the digests of the project's state, which `rebuild` must not change."""
    files = [
        *(project / "var/optuna").glob("*.log"),
        *(project / "var").glob("*.db"),
        *(project / "data/raw").glob("*"),
        project / "dvc.lock",
    ]
    assert len(files) >= 5
    return {str(path): digest_file(path) for path in files}


def test_champion_is_rebuilt_bit_for_bit(project: Path) -> None:
    before, cached = state(project), objects(project)

    done = retune(project, "rebuild", "tickets", "1", "--json", RETUNE_VAR=str(project / "var"))

    assert done.returncode == 0, done.stdout + done.stderr
    rebuilt = json.loads(done.stdout)
    assert (rebuilt["bit_equal"], rebuilt["differences"], rebuilt["notes"]) == (True, [], [])
    assert rebuilt["weights_before"] == rebuilt["weights_after"]
    assert all(message.endswith("files equal") for message in rebuilt["stages"].values())
    assert (state(project), objects(project)) == (before, cached)
    assert git(project, "worktree", "list").count("\n") == 1


@pytest.fixture
def without_data(project: Path) -> Iterator[Path]:
    """Remove the champion's snapshot from DVC's cache."""
    tags = MlflowClient(uri(project)).get_model_version("tickets", "1").tags
    digest = json.loads(tags["retune.dvc_lock"])["data/raw"]
    path = cache_folder(project) / "files/md5" / digest[:2] / digest[2:]
    away = path.with_name("away")
    path.rename(away)
    yield path
    away.rename(path)


def test_version_without_its_data_is_not_rebuilt(project: Path, without_data: Path) -> None:
    with pytest.raises(NotFound, match=r"is not in DVC's cache .*Pulling data/raw failed"):
        invoke("rebuild", "tickets", "1")
    assert git(project, "worktree", "list").count("\n") == 1


def test_version_without_its_commit_is_not_rebuilt(project: Path) -> None:
    client = MlflowClient(uri(project))
    commit = client.get_model_version("tickets", "1").tags["retune.git_commit"]
    client.set_model_version_tag("tickets", "1", "retune.git_commit", "f" * 40)
    try:
        with pytest.raises(NotFound, match="commit ffffffffffff is not in the repository"):
            invoke("rebuild", "tickets", "1")
    finally:
        client.set_model_version_tag("tickets", "1", "retune.git_commit", commit)


def test_version_of_another_program_has_no_lineage(project: Path) -> None:
    client = MlflowClient(uri(project))
    client.create_registered_model("stranger")
    client.create_model_version("stranger", str(project / "base-model"))
    for command in ("rebuild", "lineage"):
        with pytest.raises(NotFound, match="was not registered by Retune"):
            invoke(command, "stranger", "1")
    assert read_json("prune", "stranger", "--keep", "0")["kept"] == {"stranger": {"1": "not registered by Retune"}}
    client.delete_registered_model("stranger")


def test_data_missing_in_the_cache_is_pulled(project: Path, tmp_path: Path) -> None:
    assert dvc(project, "push").returncode == 0
    digest = lock_hashes(project)["data/raw"]
    path = cache_folder(project) / "files/md5" / digest[:2] / digest[2:]
    path.rename(path.with_name("away"))
    try:
        prepare_worktree(tmp_path, project)
        fetch_inputs(tmp_path, project, {"data/raw": digest})
    finally:
        path.with_name("away").rename(path)
    assert {file.name for file in (tmp_path / "data/raw").iterdir()} == {file.name for file in (project / "data/raw").iterdir()}


def test_deleted_champion_stays_in_the_history(project: Path) -> None:
    client = MlflowClient(uri(project))
    client.delete_model_version("tickets", "1")

    assert read_json("history", "tickets")[0]["version"] == 1
    now = read_json("champion", "tickets")
    assert (now["version"], now["registered"], now["agrees"]) == (1, False, False)
    assert "was deleted from the registry" in invoke("champion", "tickets").stdout
