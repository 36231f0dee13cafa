"""Training rows and predictions of earlier champions, available and missing."""

import importlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows
from components.core.errors import BadParams, Unavailable
from components.core.text import text_key
from components.data.preprocess.settings import PreprocessParams
from components.gates.forgetting import Params as Forgetting
from components.mlflow_store.registry import Version, versions
from components.model import tasks
from flows.pipeline.evidence import reference_model
from flows.pipeline.historical_data import TEST, check_splits, earlier_tests, training_rows
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support.cached import keep_folder
from tests.support.ledger_entries import entry
from tests.support.project import ROOT, TINY, change, write_params
from tests.support.registered import make_registered


def version(number: int, **made_with: str) -> Version:
    tags = {"retune.dvc_lock": json.dumps({path.replace("_", "/"): md5 for path, md5 in made_with.items()})}
    return Version("tickets", number, "run", f"k{number}", complete=True, tags=tags)


def table(*texts: str) -> pd.DataFrame:
    return pd.DataFrame({"id": [f"id {text}" for text in texts], "group": "g", "text": texts, "label": "a"})


def cached(root: Path, **tables: pd.DataFrame) -> str:
    return keep_folder(root, {f"{name}.parquet": rows.to_parquet(index=False) for name, rows in tables.items()})


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / ".dvc").mkdir()
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")


def test_training_rows_are_gathered_once_per_snapshot(workspace: Workspace) -> None:
    first = cached(workspace.root, train=table("one", "two"), validation=table("three"))
    shared = cached(workspace.root, train=table("two", "four"), validation=table("five"))
    last = cached(workspace.root, train=table("five", "six"), validation=table("one"))
    known = {
        f"k{number}": version(number, **({} if digest is None else {"data_prepared_learn": digest}))
        for number, digest in [(5, first), (4, shared), (3, shared), (2, None), (1, last)]
    }
    deleted = entry(6)
    rows = list(training_rows(workspace, "", version(7), ReferenceModels(entry(5), None, (*map(entry, (4, 3, 2, 1)), deleted)), known))

    by_name = {part.display_name: part for part in rows}
    assert list(by_name) == ["champion version 5", "version 2", "version 6", "earlier champions (4, 3, 1)"]
    assert by_name["champion version 5"].rows["text"].tolist() == ["one", "two", "three"]
    assert by_name["earlier champions (4, 3, 1)"].rows["text"].tolist() == ["two", "four", "five", "six", "one"]
    assert by_name["version 2"].fault == "version 2 has no recorded hash of data/prepared/learn"
    assert by_name["version 6"].fault == "it was deleted from the registry"


def test_no_training_rows_without_a_champion(workspace: Workspace) -> None:
    assert list(training_rows(workspace, "", version(7), ReferenceModels(), {})) == []


def test_training_rows_of_the_best_champion_are_compared(workspace: Workspace) -> None:
    known = {f"k{number}": version(number, data_prepared_learn=learn) for number, learn in [
        (1, cached(workspace.root, train=table("one"), validation=table("two"))),
        (2, cached(workspace.root, train=table("three"), validation=table("four"))),
    ]}  # fmt: skip
    rows = list(training_rows(workspace, "", version(3), ReferenceModels(entry(2), entry(1), (entry(1),)), known))

    assert [(part.by, part.compared, part.rows["text"].tolist()) for part in rows] == [
        ("champion", True, ["three", "four"]),
        ("best_champion", True, ["one", "two"]),
    ]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> tuple[str, Workspace]:
    """Two registered versions, and the workspace of the second."""
    uri, folders = make_registered(tmp_path_factory.mktemp("past"), tiny_base, tickets, versions=2)
    root = folders[1]
    write_params(root, change(read_yaml(), TINY | {"gates": {"forgetting": {"role": "blocking", "sets": ["regression.csv"]}}}))
    (root / ".dvc").mkdir()
    return uri, Workspace(root, root, root / "params.yaml")


def read_yaml() -> dict[str, object]:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | {"name": "tickets"}


@pytest.mark.exhaustive
@pytest.mark.slow
def test_rows_that_either_model_trained_on_are_left_out(registered: tuple[str, Workspace], tickets: pd.DataFrame) -> None:
    uri, workspace = registered
    champion, candidate = sorted(versions(uri, "tickets"), key=lambda version: version.number)
    rows = tickets.head(40)
    rows.drop(columns=["id", "group"]).to_csv(workspace.root / "regression.csv", index=False)
    candidate_learnt, champion_learnt = rows.iloc[:10], rows.iloc[5:25]
    learn = cached(workspace.root, train=champion_learnt, validation=rows.iloc[:0])
    with_hash = replace(champion, tags={**champion.tags, "retune.dvc_lock": json.dumps({"data/prepared/learn": learn})})
    without_hash = replace(champion, tags={**champion.tags, "retune.dvc_lock": "{}"})
    params = read_params(workspace.params)

    with ModelSessions(workspace, uri, tasks.load("text_classification")) as sessions:
        others = [
            list(training_rows(workspace, uri, candidate, ReferenceModels(replace(entry(1), key=one.key)), {one.key: one}))
            for one in (with_hash, without_hash)
        ]
        [result] = earlier_tests(workspace, sessions, candidate, with_hash, {}, params, "today", candidate_learnt, others[0])
        [unknown] = earlier_tests(workspace, sessions, candidate, without_hash, {}, params, "today", candidate_learnt, others[1])
        nothing = params.model_copy(update={"gates": params.gates.model_copy(update={"forgetting": Forgetting(sets=())})})
        assert list(earlier_tests(workspace, sessions, candidate, without_hash, {}, nothing, "today", candidate_learnt)) == []

    assert (result.fault, result.left_out, len(result.candidate.ids)) == (None, 25, 15)
    assert result.candidate.ids.tolist() == result.champion.ids.tolist()
    assert unknown.name == "regression set regression.csv"
    assert unknown.fault.startswith("the training rows of the champion are unknown: version 1 has no recorded hash")


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "refused"), [("id", True), ("text", False), ("group", False)])
def test_splits_by_id_move_only_if_split_by_is_set(tmp_path: Path, registered: tuple[str, Workspace], groups: str, refused: bool) -> None:
    uri, workspace = registered
    newest = max(versions(uri, "tickets"), key=lambda version: version.number)
    now = Profile.read(workspace.root / "data/prepared")
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    given = {"id": rows["id"], "text": pd.Series(map(text_key, rows["text"])), "group": "one for all"}[groups]
    keep = {TEST: cached(workspace.root, test=rows.assign(group=given))}
    MlflowClient(uri).set_model_version_tag("tickets", str(newest.number), "retune.dvc_lock", json.dumps(keep))
    params = read_params(workspace.params)
    unset = params.model_copy(update={"preprocess": PreprocessParams()})

    def record(profile: Profile) -> None:
        MlflowClient(uri).log_artifact(newest.run_id, str(profile.write(tmp_path)), "data")

    check_splits(workspace, uri, unset)  # unknown
    record(now.model_copy(update={"split_by": None}))
    check_splits(workspace, uri, params.model_copy(update={"preprocess": PreprocessParams(split_by="text")}))
    if refused:
        with pytest.raises(BadParams, match=r"preprocess\.split_by is not set, and version 2 was split by id"):
            check_splits(workspace, uri, unset)
        record(now.model_copy(update={"split_by": "id"}))
        with pytest.raises(BadParams, match=r"preprocess\.split_by is not set, and version 2 was split by id"):
            check_splits(workspace, uri, unset)
    else:
        check_splits(workspace, uri, unset)
    record(now.model_copy(update={"split_by": "text"}))
    check_splits(workspace, uri, unset)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_cached_predictions_do_not_replace_a_missing_package(registered: tuple[str, Workspace]) -> None:
    uri, workspace = registered
    first = min(versions(uri, "tickets"), key=lambda version: version.number)
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    champion = replace(entry(first.number), key=first.key)
    task = tasks.load("text_classification")
    with ModelSessions(workspace, uri, task) as sessions:
        assert reference_model(sessions, task, champion, {first.key: first}, rows, "d" * 64).predictions is not None

    shutil.rmtree(urlparse(MlflowClient(uri).get_model_version_download_uri("tickets", str(first.number))).path)
    with ModelSessions(workspace, uri, task) as sessions:
        model = reference_model(sessions, task, champion, {first.key: first}, rows, "d" * 64)

    assert model.predictions is None
    assert "its package cannot be fetched" in model.fault


def test_unreachable_store_raises_unavailable(monkeypatch: pytest.MonkeyPatch, registered: tuple[str, Workspace]) -> None:
    def outage(*_: object) -> Path:
        raise OSError("503 Server Error")

    verify = importlib.import_module("components.mlflow_store.registry.verify")  # the package exports the function of that name
    monkeypatch.setattr(verify, "fetch", outage)
    with pytest.raises(Unavailable, match="its package cannot be fetched at present: 503"):
        verify.checked_package(registered[0], versions(registered[0], "tickets")[0])
