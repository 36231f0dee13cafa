"""The measurement of the worked examples: which there are, and what is read from a finished one."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

import bench.tasks
from bench.tasks import commands, examples, figures, settings_of, table
from components.model import tasks
from flows.project.params import read_params
from tests.support.project import ROOT, git, make_project


def test_every_task_has_an_example_whose_readme_runs_it() -> None:
    lines = [line for folder in examples(ROOT) for line in commands(folder / "README.md") if line[0] == "retune"]

    assert {read_params(ROOT / settings_of(line)).task for line in lines} == set(tasks.available())
    assert "diagnosis" in {folder.name for folder in examples(ROOT)}


def test_a_run_without_a_file_is_about_the_settings_of_the_project() -> None:
    assert [settings_of(line) for line in commands(ROOT / "examples/diagnosis/README.md") if line[0] == "retune"] == ["params.yaml"]
    assert settings_of(["retune", "run", "--params", "a.yaml", "--inline"]) == "a.yaml"


def test_an_unknown_example_is_refused_with_the_list() -> None:
    with pytest.raises(SystemExit, match=r"no example nowhere; there are: .*question_answering"):
        examples(ROOT, ["nowhere"])


def test_the_figures_are_those_that_the_gate_decides_on(tmp_path: Path) -> None:
    settings = {"task": "token_classification", "gates": {"baseline": {"metric": "entity_f1", "against": "frequent_tag"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def estimate(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "doubt": None}

    metrics = {
        "headline": {"entity_f1": estimate(0.8)},
        "baselines": {"frequent_tag": {"entity_f1": estimate(0.5)}},
        "differences": {"frequent_tag": {"entity_f1": estimate(0.3)}},
        "rows": 90,
        "groups": 60,
    }
    found = figures(tmp_path / "params.yaml", json.loads(json.dumps(metrics)))

    assert (found["value"], found["baseline_value"], found["beats_it"]) == (0.8, 0.5, True)
    assert found["difference_interval"] == pytest.approx([0.2, 0.4])
    line = table([{"example": "brown/params"} | found | {"seconds": 61.2, "peak_memory_gib": 1.5}])[-1]
    assert "| entity_f1 | 0.800 | frequent_tag | 0.500 | +0.300 | +0.200 to +0.400 | 61 s | 1.50 GiB |" in line


README = """# Tickets

    pip install -e '.[example]'
    python examples/tickets/make_data.py                    # writes labelled.csv
    retune run --params examples/tickets/classify.yaml
    retune run --inline --params examples/tickets/classify_alone.yaml
    python examples/tickets/compare.py
"""
COPY = """import shutil
from pathlib import Path

shutil.copy("tickets.csv", Path(__file__).with_name("labelled.csv"))
"""


def make_example(folder: Path, project: Path) -> None:
    """Two models of the tickets, one of which learns for longer, and the script that compares such a pair."""
    folder.mkdir(parents=True)
    settings = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    settings |= {"snapshot": {"source": "labelled.csv"}, "base": {"model": str(project / "base-model")}}
    for name, epochs in (("classify", 6), ("classify_alone", 1)):
        text = yaml.safe_dump(settings | {"name": name, "train": settings["train"] | {"epochs": epochs}})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "compare.py").write_bytes((ROOT / "examples/domain_pretraining/compare.py").read_bytes())
    (folder / "README.md").write_text(README, encoding="utf-8")
    (folder / "make_data.py").write_text(COPY, encoding="utf-8")
    git(project, "add", "-A")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "an example")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_commands_of_an_example_are_run_in_a_clone_and_measured(
    tiny_base: Path, tickets: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", tiny_base, tickets)
    make_example(project / "examples/tickets", project)
    monkeypatch.setattr(bench.tasks, "ROOT", project)
    bench.tasks.main(["--only", "tickets", "--json", str(tmp_path / "found.json")])

    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    models = [one for one in found if one["example"] != "tickets/compare"]
    assert [one["example"] for one in models] == ["tickets/classify", "tickets/classify_alone"]
    assert all(one["seconds"] > 1 and one["peak_memory_gib"] > 0.05 and one["baseline"] == "majority" for one in models)
    compared = {one["metric"]: one for one in found if one["example"] == "tickets/compare"}
    assert compared["accuracy"]["value"] == pytest.approx(models[0]["value"])
    assert compared["accuracy"]["baseline_value"] == pytest.approx(models[1]["value"])
    low, high = compared["accuracy"]["difference_interval"]
    assert low <= compared["accuracy"]["difference"] <= high
    assert compared["accuracy"]["difference"] == pytest.approx(models[0]["value"] - models[1]["value"])
    assert capsys.readouterr().out.count("| tickets/") == len(found) == 2 + len(compared)
    assert not list(project.glob("examples/tickets/labelled.csv"))  # only the clone was run in
