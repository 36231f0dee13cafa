"""The parameter file that `retune auto` uses for a data file."""

from pathlib import Path
from typing import Any

import pytest

from components.core.errors import BadParams, Unavailable
from flows.project.auto_params import params_for
from flows.project.params import read_params
from flows.project.run_locks import folder_lock
from tests.support.tickets import make_tickets

USUAL: dict[str, Any] = {"name": None, "minutes": None, "force": False}


def write(file: Path) -> Path:
    make_tickets().to_csv(file, index=False)
    return file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "tickets.csv")


def test_missing_file_is_written(data: Path, tmp_path: Path) -> None:
    file, guess = params_for(data, None, tmp_path, **USUAL)

    assert file == tmp_path / "params.yaml"
    assert guess is not None
    assert (read_params(file).tune.strategy, read_params(file).tune.minutes) == ("auto", 15)


def test_file_of_the_same_data_is_kept(data: Path, tmp_path: Path) -> None:
    file, _ = params_for(data, None, tmp_path, **USUAL)
    file.write_text(file.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")

    again, guess = params_for(data, None, tmp_path, **USUAL)
    assert (again, guess) == (file, None)
    assert file.read_text(encoding="utf-8").endswith("# mine\n")


def test_project_with_other_data_gets_a_model_folder(data: Path, tmp_path: Path) -> None:
    params_for(write(tmp_path / "other.csv"), None, tmp_path, **USUAL)

    file, _ = params_for(data, None, tmp_path, **USUAL)
    assert file == tmp_path / "models/tickets/params.yaml"
    assert read_params(file).snapshot.source == "../../tickets.csv"
    assert params_for(data, None, tmp_path, **USUAL) == (file, None)


def test_given_file_with_other_data_needs_force(data: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.csv")
    file, _ = params_for(other, tmp_path / "p.yaml", tmp_path, **USUAL)

    with pytest.raises(BadParams, match=r"another snapshot\.source"):
        params_for(data, file, tmp_path, **USUAL)
    params_for(data, file, tmp_path, **USUAL | {"force": True})
    assert read_params(file).snapshot.source == "tickets.csv"


def test_other_minutes_replace_one_number(data: Path, tmp_path: Path) -> None:
    file, _ = params_for(data, None, tmp_path, **USUAL)
    before = file.read_text(encoding="utf-8")
    params_for(data, None, tmp_path, **USUAL | {"minutes": 30})

    after = file.read_text(encoding="utf-8")
    changed = [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 1
    assert read_params(file).tune.minutes == 30


def test_minutes_keep_all_digits(data: Path, tmp_path: Path) -> None:
    for minutes in (0.3333333, 12.3456789):
        file, _ = params_for(data, None, tmp_path, **USUAL | {"minutes": minutes})
        assert read_params(file).tune.minutes == minutes


def test_other_data_with_the_name_of_a_model_is_refused(tmp_path: Path) -> None:
    old, new = tmp_path / "jan", tmp_path / "feb"
    old.mkdir()
    new.mkdir()
    own, _ = params_for(write(old / "tickets.csv"), None, tmp_path, **USUAL)

    with pytest.raises(BadParams, match=rf"{own} already names the model 'tickets'.*snapshot\.source.*--name"):
        params_for(write(new / "tickets.csv"), None, tmp_path, **USUAL)
    assert not (tmp_path / "models/tickets").exists()
    file, _ = params_for(new / "tickets.csv", None, tmp_path, **USUAL | {"name": "feb"})
    assert (file, read_params(file).name) == (tmp_path / "models/feb/params.yaml", "feb")


def test_folder_of_a_stage_is_refused(data: Path, tmp_path: Path) -> None:
    params_for(data, None, tmp_path, **USUAL)

    with pytest.raises(BadParams, match=r"the stages replace .*models/trained.*--name"):
        params_for(write(tmp_path / "trained.csv"), None, tmp_path, **USUAL)


def test_file_of_an_active_run_is_not_changed(data: Path, tmp_path: Path) -> None:
    file, _ = params_for(data, None, tmp_path, **USUAL)
    before = file.read_text(encoding="utf-8")

    with folder_lock(tmp_path), pytest.raises(Unavailable, match="another run uses"):
        params_for(data, None, tmp_path, **USUAL | {"minutes": 30})
    assert file.read_text(encoding="utf-8") == before


def test_minutes_in_flow_style_are_not_guessed(data: Path, tmp_path: Path) -> None:
    file, _ = params_for(data, None, tmp_path, **USUAL)
    text = file.read_text(encoding="utf-8")
    start, end = text.index("tune:"), text.index("train:")
    file.write_text(f"{text[:start]}tune: {{strategy: auto, minutes: 15}}\n{text[end:]}", encoding="utf-8")

    with pytest.raises(BadParams, match="set it to 30"):
        params_for(data, None, tmp_path, **USUAL | {"minutes": 30})


def test_other_strategy_or_name_is_refused(data: Path, tmp_path: Path) -> None:
    file, _ = params_for(data, None, tmp_path, **USUAL)

    with pytest.raises(BadParams, match="names the model 'tickets'"):
        params_for(data, None, tmp_path, **USUAL | {"name": "mails"})
    file.write_text(file.read_text(encoding="utf-8").replace("strategy: auto", "strategy: none"), encoding="utf-8")
    with pytest.raises(BadParams, match=r"tune\.strategy is none"):
        params_for(data, None, tmp_path, **USUAL)
