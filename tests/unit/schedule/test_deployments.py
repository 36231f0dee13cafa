"""The deployments: prefect.yaml with one `retrain` per model, on the model's own schedule."""

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


def test_each_model_has_its_own_schedule() -> None:
    models = [
        model("plain"),
        model("nightly", cron="30 2 * * *", timezone="Europe/Berlin", on_overlap="queue"),
        model("by_hand", cron=False),
    ]
    by_name = {entry["name"]: entry for entry in describe(read_file(ROOT), models, None)["deployments"]}

    assert set(by_name) == {"plain", "nightly", "by_hand", "promote", "score", "prune"}
    assert [schedule["cron"] for schedule in by_name["plain"]["schedules"]] == ["0 3 * * *"]
    assert by_name["nightly"]["schedules"] == [{"cron": "30 2 * * *", "timezone": "Europe/Berlin", "active": True}]
    assert by_name["nightly"]["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE", "grace_period_seconds": 60}
    assert by_name["plain"]["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
    assert by_name["by_hand"]["schedules"] == []
    assert by_name["plain"]["parameters"] == {"model": "plain"}


def test_pool_option_replaces_the_pool_of_the_file() -> None:
    described = describe(read_file(ROOT), [model("plain")], "kubernetes")

    assert {entry["work_pool"]["name"] for entry in described["deployments"]} == {"kubernetes"}


def test_only_own_schedules_are_removed() -> None:
    file = read_file(ROOT)
    plain, off = describe(file, [model("plain")], None), describe(file, [model("plain", cron=False)], None)
    for entry in off["deployments"]:
        if entry["name"] == "prune":
            del entry["schedules"]
        if entry["name"] == "score":
            entry["schedule"] = {"cron": "0 1 * * *"}  # the older form

    assert unscheduled(plain, {"deployments": []}) == []
    assert unscheduled(off, {"deployments": []}) == ["retrain/plain"]
    assert unscheduled(off, plain) == ["retrain/plain", "prune/prune"]
    assert names({"deployments": [{"entrypoint": "flows/more.py:my_flow", "name": "nightly"}]}) == ["my-flow/nightly"]


def test_pool_created_by_a_worker_meanwhile_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers = [None, httpx.Response(200)]  # before and after the failed command
    monkeypatch.setattr(deployments, "call", lambda method, url: answers.pop(0))
    monkeypatch.setattr(deployments, "prefect", refuse)
    deployments.ensure_pool(tmp_path, "http://prefect/api", "retune", named=False)
    assert answers == []

    monkeypatch.setattr(deployments, "call", lambda method, url: None)
    with pytest.raises(RetuneError, match="Prefect refused"):
        deployments.ensure_pool(tmp_path, "http://prefect/api", "retune", named=False)


def refuse(*_arguments: object) -> str:
    raise RetuneError("Prefect refused")


def test_describe_does_not_change_its_input() -> None:
    file = read_file(ROOT)
    before = yaml.safe_dump(file)
    describe(file, [model("plain", cron="* * * * *")], "another")

    assert yaml.safe_dump(file) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cron": "every day"}, "is not a cron expression"),
        ({"cron": "61 3 * * *"}, "is not a cron expression"),
        ({"timezone": "Europe/Berln"}, "unknown time zone 'Europe/Berln'; did you mean 'Europe/Berlin'"),
        ({"timezone": "nowhere at all"}, "expected e.g. Europe/Berlin"),
        ({"on_overlap": "wait"}, "skip"),
        ({"min_new_labels": -1}, "min_new_labels"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadParams, match=message):
        RetrainParams.parse(settings, "retrain")


@pytest.mark.parametrize("content", ["- a list", "deployments: []", "deployments: [{name: promote}]", ": : :"])
def test_file_without_retrain_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "prefect.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(BadParams, match=r"prefect\.yaml"):
        read_file(tmp_path)
    with pytest.raises(BadParams, match="cannot be read"):
        read_file(tmp_path / "elsewhere")
