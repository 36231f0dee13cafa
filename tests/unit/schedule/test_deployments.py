"""What Prefect is told to run: prefect.yaml, with one `retrain` a model on the model's own schedule."""

from pathlib import Path

import httpx
import pytest
import yaml

from components.core.errors import BadParams, RetuneError
from flows.project.models import ModelFolder
from flows.project.params import RetrainParams
from flows.schedule import deployments
from flows.schedule.deployments import describe, names, read_file, unscheduled
from tests.support.project import ROOT


def model(name: str, **settings: object) -> tuple[ModelFolder, RetrainParams]:
    return ModelFolder(name, Path(name)), RetrainParams.parse(settings, "retrain")


def test_each_model_is_deployed_on_its_own_schedule() -> None:
    models = [
        model("plain"),
        model("nightly", cron="30 2 * * *", timezone="Europe/Berlin", late="queue"),
        model("by_hand", cron=False),
    ]
    found = {one["name"]: one for one in describe(read_file(ROOT), models, None)["deployments"]}

    assert set(found) == {"plain", "nightly", "by_hand", "promote", "score", "prune"}
    assert [one["cron"] for one in found["plain"]["schedules"]] == ["0 3 * * *"]
    assert found["nightly"]["schedules"] == [{"cron": "30 2 * * *", "timezone": "Europe/Berlin", "active": True}]
    assert found["nightly"]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE", "grace_period_seconds": 60}
    assert found["plain"]["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    assert found["by_hand"]["schedules"] == []
    assert found["plain"]["parameters"] == {"model": "plain"}


def test_another_work_pool_takes_the_place_of_the_files() -> None:
    found = describe(read_file(ROOT), [model("plain")], "kubernetes")

    assert {one["work_pool"]["name"] for one in found["deployments"]} == {"kubernetes"}


def test_a_schedule_that_is_off_is_taken_away_and_one_that_people_made_is_theirs() -> None:
    file = read_file(ROOT)
    plain, off = describe(file, [model("plain")], None), describe(file, [model("plain", cron=False)], None)
    for one in off["deployments"]:
        if one["name"] == "prune":
            del one["schedules"]
        if one["name"] == "score":
            one["schedule"] = {"cron": "0 1 * * *"}  # as Prefect still reads it

    assert unscheduled(plain, {"deployments": []}) == []
    assert unscheduled(off, {"deployments": []}) == ["retrain/plain"]
    assert unscheduled(off, plain) == ["retrain/plain", "prune/prune"]
    assert names({"deployments": [{"entrypoint": "flows/more.py:my_flow", "name": "nightly"}]}) == ["my-flow/nightly"]


def test_a_pool_that_a_worker_makes_at_the_same_moment_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [None, httpx.Response(200)]  # before the command line is asked, and after it has refused
    monkeypatch.setattr(deployments, "called", lambda method, url: answers.pop(0))
    monkeypatch.setattr(deployments, "prefect", refuse)
    deployments.ensure_pool(tmp_path, "http://prefect/api", "retune", named=False)
    assert answers == []

    monkeypatch.setattr(deployments, "called", lambda method, url: None)
    with pytest.raises(RetuneError, match="Prefect refused"):
        deployments.ensure_pool(tmp_path, "http://prefect/api", "retune", named=False)


def refuse(*_arguments: object) -> str:
    raise RetuneError("Prefect refused")


def test_the_file_is_left_as_it_is() -> None:
    file = read_file(ROOT)
    before = yaml.safe_dump(file)
    describe(file, [model("plain", cron="* * * * *")], "another")

    assert yaml.safe_dump(file) == before


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"cron": "every day"}, "is no cron"),
        ({"cron": "61 3 * * *"}, "is no cron"),
        ({"timezone": "Europe/Berln"}, "unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'"),
        ({"timezone": "nowhere at all"}, "expected one such as Europe/Berlin"),
        ({"on_overlap": "wait"}, "skip"),
        ({"min_new_labels": -1}, "min_new_labels"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadParams, match=says):
        RetrainParams.parse(settings, "retrain")


@pytest.mark.parametrize("content", ["- a list", "deployments: []", "deployments: [{name: promote}]", ": : :"])
def test_a_file_without_retrain_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "prefect.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(BadParams, match=r"prefect\.yaml"):
        read_file(tmp_path)
    with pytest.raises(BadParams, match="cannot be read"):
        read_file(tmp_path / "elsewhere")
