"""A model is a folder: found by its name, refused where two share one, and it keeps what DVC knows of it."""

from pathlib import Path

import pytest

from components.core.errors import BadParams
from flows.project.models import find_model, find_models, survey_models
from flows.project.workspace import Workspace, copy_lock_files_back, sync_workspace


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder, name in ((".", "own"), ("models/tickets", "tickets"), ("models/mails", "spam")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "params.yaml").write_text(f"name: {name}\n", encoding="utf-8")
    (tmp_path / "models/trained").mkdir()  # of the project's own stages
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "components").mkdir()
    return tmp_path


def test_the_projects_own_model_and_each_folder_are_models(project: Path) -> None:
    assert [model.name for model in find_models(project)] == ["own", "spam", "tickets"]
    assert find_model(project, "spam").params == find_model(project, "mails").params == project / "models/mails/params.yaml"


def test_an_unknown_model_is_refused_with_the_nearest(project: Path) -> None:
    with pytest.raises(BadParams, match=r"no model 'ticket'.*did you mean 'tickets'"):
        find_model(project, "ticket")


def test_a_registered_name_goes_before_a_folders(project: Path) -> None:
    (project / "models/spam").mkdir()
    (project / "models/spam/params.yaml").write_text("name: other\n", encoding="utf-8")

    assert find_model(project, "spam").params == project / "models/mails/params.yaml"
    assert find_model(project, "other").params == project / "models/spam/params.yaml"


def test_what_is_wrong_with_one_folder_keeps_no_other_model_from_being_found(project: Path) -> None:
    (project / "models/empty").mkdir()

    assert find_model(project, "tickets").params == project / "models/tickets/params.yaml"
    with pytest.raises(BadParams, match=r"no model 'empty'[\s\S]*models/empty has no params\.yaml"):
        find_model(project, "empty")


def test_two_folders_of_one_name_are_refused(project: Path) -> None:
    (project / "models/mails/params.yaml").write_text("name: tickets\n", encoding="utf-8")

    with pytest.raises(BadParams, match="both name the model 'tickets'"):
        find_model(project, "tickets")
    assert find_model(project, "own").params == project / "params.yaml"


def test_every_folder_that_is_no_model_is_told_at_once(project: Path) -> None:
    (project / "models/empty").mkdir()
    (project / "models/mails/params.yaml").write_text("name: tickets\n", encoding="utf-8")
    (project / "models/odd").mkdir()
    (project / "models/odd/params.yaml").write_text("- a list\n", encoding="utf-8")

    with pytest.raises(BadParams) as error:
        find_models(project)
    said = str(error.value)
    assert "models/empty has no params.yaml" in said
    assert "both name the model 'tickets'" in said
    assert "models/odd/params.yaml: expected `name:`" in said


def test_a_model_keeps_what_dvc_knows_of_it_in_its_folder(project: Path) -> None:
    home = project / "models/tickets"
    place = Workspace(project, project / "var/workspaces/tickets", home / "params.yaml")
    (home / "raw.dvc").write_text("outs: []\n", encoding="utf-8")
    sync_workspace(place)
    assert (place.root / "data/raw.dvc").read_text(encoding="utf-8") == "outs: []\n"

    (place.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    copy_lock_files_back(place)
    assert (home / "dvc.lock").read_text(encoding="utf-8") == "stages: {}\n"
    assert sorted(path.name for path in home.iterdir()) == ["dvc.lock", "params.yaml", "raw.dvc"]


def test_a_checkout_forgets_what_its_commit_knows_of_another_model(project: Path) -> None:
    root = project / "var/runs/1/checkout"
    (root / "models/tickets").mkdir(parents=True)
    (root / "models/tickets/params.yaml").write_text("name: tickets\n", encoding="utf-8")
    (root / "dvc.lock").write_text("stages: {of: another}\n", encoding="utf-8")
    place = Workspace(project, root, root / "models/tickets/params.yaml", home=project / "models/tickets", commit="c" * 40)
    sync_workspace(place)

    assert not (root / "dvc.lock").exists()
    assert (root / "params.yaml").read_text(encoding="utf-8") == "name: tickets\n"


def test_another_parameter_file_keeps_nothing_beside_itself(project: Path) -> None:
    (project / "examples").mkdir()
    place = Workspace(project, project / "var/workspaces/x", project / "examples/params.yaml")

    assert place.kept == {}


@pytest.mark.parametrize(
    "content", [b"name: 2026-13-45", b"name: !!int abc", b"[" * 20_000, b"name: \xff", b"name: a\nname: b", b"name: &a [*a]"]
)
def test_a_broken_folder_breaks_no_other(project: Path, content: bytes) -> None:
    (project / "models/broken").mkdir(parents=True, exist_ok=True)
    (project / "models/broken/params.yaml").write_bytes(content)
    found, faults = survey_models(project)

    assert found
    assert all(model.params.parent.name != "broken" for model in found)
    assert any("models/broken/params.yaml" in fault for fault in faults)
