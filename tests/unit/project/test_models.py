"""Models are folders: found by name, with unique names, and with their DVC files."""

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
    (tmp_path / "models/trained").mkdir()  # written by the stages of the own model
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (tmp_path / "components").mkdir()
    return tmp_path


def test_own_model_and_folders_are_found(project: Path) -> None:
    assert [model.name for model in find_models(project)] == ["own", "spam", "tickets"]
    assert find_model(project, "spam").params == find_model(project, "mails").params == project / "models/mails/params.yaml"


def test_unknown_model_names_the_nearest(project: Path) -> None:
    with pytest.raises(BadParams, match=r"no model 'ticket'.*did you mean 'tickets'"):
        find_model(project, "ticket")


def test_registered_name_wins_over_folder_name(project: Path) -> None:
    (project / "models/spam").mkdir()
    (project / "models/spam/params.yaml").write_text("name: other\n", encoding="utf-8")

    assert find_model(project, "spam").params == project / "models/mails/params.yaml"
    assert find_model(project, "other").params == project / "models/spam/params.yaml"


def test_invalid_folder_does_not_hide_other_models(project: Path) -> None:
    (project / "models/empty").mkdir()

    assert find_model(project, "tickets").params == project / "models/tickets/params.yaml"
    with pytest.raises(BadParams, match=r"no model 'empty'[\s\S]*models/empty has no params\.yaml"):
        find_model(project, "empty")


def test_duplicate_name_is_refused(project: Path) -> None:
    (project / "models/mails/params.yaml").write_text("name: tickets\n", encoding="utf-8")

    with pytest.raises(BadParams, match="both name the model 'tickets'"):
        find_model(project, "tickets")
    assert find_model(project, "own").params == project / "params.yaml"


def test_all_invalid_folders_are_reported_at_once(project: Path) -> None:
    (project / "models/empty").mkdir()
    (project / "models/mails/params.yaml").write_text("name: tickets\n", encoding="utf-8")
    (project / "models/odd").mkdir()
    (project / "models/odd/params.yaml").write_text("- a list\n", encoding="utf-8")

    with pytest.raises(BadParams) as error:
        find_models(project)
    message = str(error.value)
    assert "models/empty has no params.yaml" in message
    assert "both name the model 'tickets'" in message
    assert "models/odd/params.yaml: expected `name:`" in message


def test_dvc_files_are_kept_in_the_model_folder(project: Path) -> None:
    home = project / "models/tickets"
    workspace = Workspace(project, project / "var/workspaces/tickets", home / "params.yaml")
    (home / "raw.dvc").write_text("outs: []\n", encoding="utf-8")
    sync_workspace(workspace)
    assert (workspace.root / "data/raw.dvc").read_text(encoding="utf-8") == "outs: []\n"

    (workspace.root / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    copy_lock_files_back(workspace)
    assert (home / "dvc.lock").read_text(encoding="utf-8") == "stages: {}\n"
    assert sorted(path.name for path in home.iterdir()) == ["dvc.lock", "params.yaml", "raw.dvc"]


def test_checkout_drops_dvc_files_of_another_model(project: Path) -> None:
    root = project / "var/runs/1/checkout"
    (root / "models/tickets").mkdir(parents=True)
    (root / "models/tickets/params.yaml").write_text("name: tickets\n", encoding="utf-8")
    (root / "dvc.lock").write_text("stages: {of: another}\n", encoding="utf-8")
    workspace = Workspace(project, root, root / "models/tickets/params.yaml", home=project / "models/tickets", commit="c" * 40)
    sync_workspace(workspace)

    assert not (root / "dvc.lock").exists()
    assert (root / "params.yaml").read_text(encoding="utf-8") == "name: tickets\n"


def test_other_parameter_file_has_no_dvc_files(project: Path) -> None:
    (project / "examples").mkdir()
    workspace = Workspace(project, project / "var/workspaces/x", project / "examples/params.yaml")

    assert workspace.dvc_files == {}


@pytest.mark.parametrize(
    "content", [b"name: 2026-13-45", b"name: !!int abc", b"[" * 20_000, b"name: \xff", b"name: a\nname: b", b"name: &a [*a]"]
)
def test_unreadable_params_are_reported_as_a_fault(project: Path, content: bytes) -> None:
    (project / "models/broken").mkdir(parents=True, exist_ok=True)
    (project / "models/broken/params.yaml").write_bytes(content)
    models, faults = survey_models(project)

    assert models
    assert all(model.params.parent.name != "broken" for model in models)
    assert any("models/broken/params.yaml" in fault for fault in faults)
