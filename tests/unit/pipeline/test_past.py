"""What earlier champions learnt from and what they answer, where all of it is at hand and where it is not."""

import importlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
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
from components.data.preprocess import PreprocessParams
from components.gates.forgetting import Params as Forgetting
from components.ledger import Entry
from components.mlflow_store.registry import Version, versions
from components.model import tasks
from flows.pipeline.evidence import reference_model
from flows.pipeline.historical_data import TEST, check_splits, earlier_tests, training_rows
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels
from flows.project.params import read_params
from flows.project.workspace import Workspace
from tests.support.cached import keep_folder
from tests.support.project import ROOT, TINY, change, write_params
from tests.support.registered import make_registered


def entry(number: int) -> Entry:
    at = datetime(2026, 11, number, tzinfo=UTC)
    return Entry(
        model="tickets", sequence=number, at=at, action="promoted", version=number, key=f"k{number}", previous=None, who="t", why="t"
    )


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


def test_rows_of_the_champion_and_of_all_before_it_are_gathered_each_once(workspace: Workspace) -> None:
    mine = cached(workspace.root, train=table("one", "two"), validation=table("three"))
    theirs = cached(workspace.root, train=table("two", "four"), validation=table("five"))
    last = cached(workspace.root, train=table("five", "six"), validation=table("one"))
    known = {
        f"k{number}": version(number, **({} if digest is None else {"data_prepared_learn": digest}))
        for number, digest in [(5, mine), (4, theirs), (3, theirs), (2, None), (1, last)]
    }
    gone = entry(6)
    found = list(training_rows(workspace, "", version(7), ReferenceModels(entry(5), None, (*map(entry, (4, 3, 2, 1)), gone)), known))

    by_name = {one.display_name: one for one in found}
    assert list(by_name) == ["champion version 5", "version 2", "version 6", "earlier champions (4, 3, 1)"]
    assert by_name["champion version 5"].rows["text"].tolist() == ["one", "two", "three"]
    assert by_name["earlier champions (4, 3, 1)"].rows["text"].tolist() == ["two", "four", "five", "six", "one"]
    assert by_name["version 2"].fault == "version 2 does not say which data/prepared/learn it was made with"
    assert by_name["version 6"].fault == "it was deleted from the registry"


def test_without_a_champion_nobody_has_seen_anything(workspace: Workspace) -> None:
    assert list(training_rows(workspace, "", version(7), ReferenceModels(), {})) == []


def test_what_the_best_champion_so_far_learnt_is_compared(workspace: Workspace) -> None:
    known = {f"k{number}": version(number, data_prepared_learn=learn) for number, learn in [
        (1, cached(workspace.root, train=table("one"), validation=table("two"))),
        (2, cached(workspace.root, train=table("three"), validation=table("four"))),
    ]}  # fmt: skip
    found = list(training_rows(workspace, "", version(3), ReferenceModels(entry(2), entry(1), (entry(1),)), known))

    assert [(one.by, one.compared, one.rows["text"].tolist()) for one in found] == [
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


@pytest.mark.slow
def test_what_either_of_them_learnt_is_not_asked(registered: tuple[str, Workspace], tickets: pd.DataFrame) -> None:
    uri, workspace = registered
    champion, candidate = sorted(versions(uri, "tickets"), key=lambda one: one.number)
    rows = tickets.head(40)
    rows.drop(columns=["id", "group"]).to_csv(workspace.root / "regression.csv", index=False)
    candidate_learnt, champion_learnt = rows.iloc[:10], rows.iloc[5:25]
    learn = cached(workspace.root, train=champion_learnt, validation=rows.iloc[:0])
    told = replace(champion, tags={**champion.tags, "retune.dvc_lock": json.dumps({"data/prepared/learn": learn})})
    untold = replace(champion, tags={**champion.tags, "retune.dvc_lock": "{}"})
    params = read_params(workspace.params)

    with ModelSessions(workspace, uri, tasks.load("text_classification")) as asked:
        others = [
            list(training_rows(workspace, uri, candidate, ReferenceModels(replace(entry(1), key=one.key)), {one.key: one}))
            for one in (told, untold)
        ]
        [found] = earlier_tests(workspace, asked, candidate, told, {}, params, "today", candidate_learnt, others[0])
        [unknown] = earlier_tests(workspace, asked, candidate, untold, {}, params, "today", candidate_learnt, others[1])
        nothing = params.model_copy(update={"gates": params.gates.model_copy(update={"forgetting": Forgetting(sets=())})})
        assert list(earlier_tests(workspace, asked, candidate, untold, {}, nothing, "today", candidate_learnt)) == []

    assert (found.fault, found.left_out, len(found.candidate.ids)) == (None, 25, 15)
    assert found.candidate.ids.tolist() == found.champion.ids.tolist()
    assert unknown.name == "regression set regression.csv"
    assert unknown.fault.startswith("which rows are new to the champion cannot be told: version 1 does not say")


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "refused"), [("id", True), ("text", False), ("group", False)])
def test_splits_of_an_earlier_release_move_only_when_asked(
    tmp_path: Path, registered: tuple[str, Workspace], groups: str, refused: bool
) -> None:
    uri, workspace = registered
    newest = max(versions(uri, "tickets"), key=lambda one: one.number)
    now = Profile.read(workspace.root / "data/prepared")
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    given = {"id": rows["id"], "text": pd.Series(map(text_key, rows["text"])), "group": "one for all"}[groups]
    keep = {TEST: cached(workspace.root, test=rows.assign(group=given))}
    MlflowClient(uri).set_model_version_tag("tickets", str(newest.number), "retune.dvc_lock", json.dumps(keep))
    params = read_params(workspace.params)
    unset = params.model_copy(update={"preprocess": PreprocessParams()})

    def record(profile: Profile) -> None:
        MlflowClient(uri).log_artifact(newest.run_id, str(profile.write(tmp_path)), "data")

    check_splits(workspace, uri, unset)  # it is not known
    record(now.model_copy(update={"split_by": None}))
    check_splits(workspace, uri, params.model_copy(update={"preprocess": PreprocessParams(split_by="text")}))
    if refused:
        with pytest.raises(BadParams, match=r"preprocess\.split_by is not set, and version 2 was made when"):
            check_splits(workspace, uri, unset)
        record(now.model_copy(update={"split_by": "id"}))
        with pytest.raises(BadParams, match=r"preprocess\.split_by is not set, and version 2 was made when"):
            check_splits(workspace, uri, unset)
    else:
        check_splits(workspace, uri, unset)
    record(now.model_copy(update={"split_by": "text"}))
    check_splits(workspace, uri, unset)


@pytest.mark.slow
def test_answers_that_were_kept_do_not_make_up_for_a_package_that_is_gone(registered: tuple[str, Workspace]) -> None:
    uri, workspace = registered
    first = min(versions(uri, "tickets"), key=lambda one: one.number)
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    champion = replace(entry(first.number), key=first.key)
    task = tasks.load("text_classification")
    with ModelSessions(workspace, uri, task) as asked:
        assert reference_model(asked, task, champion, {first.key: first}, rows, "d" * 64).predictions is not None

    shutil.rmtree(urlparse(MlflowClient(uri).get_model_version_download_uri("tickets", str(first.number))).path)
    with ModelSessions(workspace, uri, task) as asked:
        found = reference_model(asked, task, champion, {first.key: first}, rows, "d" * 64)

    assert found.predictions is None
    assert "its package cannot be fetched" in found.fault


def test_a_store_that_does_not_answer_is_no_verdict_on_a_version(
    monkeypatch: pytest.MonkeyPatch, registered: tuple[str, Workspace]
) -> None:
    def outage(*_: object) -> Path:
        raise OSError("503 Server Error")

    verify = importlib.import_module("components.mlflow_store.registry.verify")  # the package exports the function of that name
    monkeypatch.setattr(verify, "fetch", outage)
    with pytest.raises(Unavailable, match="its package cannot be fetched now: 503"):
        verify.inspected(registered[0], versions(registered[0], "tickets")[0])
