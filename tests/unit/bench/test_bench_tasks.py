"""The benchmark of the worked examples: their commands, and the figures of a finished run."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

import bench.run
import bench.tasks
from bench.tasks import commands, examples, figures, settings_of, table
from components.model import tasks
from flows.project.params import read_params
from tests.support.project import ROOT, git, make_project

SHIPPED = {
    "causal_lm",
    "contrastive",
    "masked_lm",
    "question_answering",
    "sequence_to_sequence",
    "text_classification",
    "token_classification",
}


def test_every_shipped_task_has_an_example() -> None:
    lines = [line for folder in examples(ROOT) for line in commands(folder / "README.md") if line[0] == "retune"]

    assert SHIPPED <= {read_params(ROOT / settings_of(line)).task for line in lines} <= set(tasks.available())
    assert "diagnosis" in {folder.name for folder in examples(ROOT)}


def test_run_without_params_uses_params_yaml() -> None:
    assert [settings_of(line) for line in commands(ROOT / "examples/diagnosis/README.md") if line[0] == "retune"] == ["params.yaml"]
    assert settings_of(["retune", "run", "--params", "a.yaml", "--inline"]) == "a.yaml"


def test_unknown_example_lists_the_names() -> None:
    with pytest.raises(SystemExit, match=r"no example nowhere; available: .*question_answering"):
        examples(ROOT, ["nowhere"])


@pytest.mark.parametrize("against", ["frequent_tag", "best"])
def test_figures_use_the_metric_of_the_baseline_gate(tmp_path: Path, against: str) -> None:
    settings = {"task": "token_classification", "gates": {"baseline": {"metric": "entity_f1", "against": against}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def estimate(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "doubt": None}

    metrics = {
        "headline": {"entity_f1": estimate(0.8)},
        "baselines": {"frequent_tag": {"entity_f1": estimate(0.5)}},
        "differences": {"frequent_tag": {"entity_f1": estimate(0.3)}},
        "validation": {"majority": {"entity_f1": 0.0}, "frequent_tag": {"entity_f1": 0.4}},
        "rows": 90,
        "groups": 60,
    }
    row = figures(tmp_path / "params.yaml", json.loads(json.dumps(metrics)))

    assert (row["value"], row["baseline_value"], row["beats_it"]) == (0.8, 0.5, True)
    assert row["difference_interval"] == pytest.approx([0.2, 0.4])
    line = table([{"example": "brown/params"} | row | {"seconds": 61.2, "peak_memory_gib": 1.5}])[-1]
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
    """Write two models of the tickets, one trained longer, and the script that compares them."""
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
def test_example_commands_run_in_a_clone(
    tiny_base: Path, tickets: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", tiny_base, tickets)
    make_example(project / "examples/tickets", project)
    monkeypatch.setattr(bench.run, "ROOT", project)
    bench.tasks.main(["--only", "tickets", "--json", str(tmp_path / "rows.json")])

    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    models = [row for row in rows if row["example"] != "tickets/compare"]
    assert [row["example"] for row in models] == ["tickets/classify", "tickets/classify_alone"]
    assert all(row["seconds"] > 1 and row["peak_memory_gib"] > 0.05 and row["baseline"] == "majority" for row in models)
    compared = {row["metric"]: row for row in rows if row["example"] == "tickets/compare"}
    assert compared["accuracy"]["value"] == pytest.approx(models[0]["value"])
    assert compared["accuracy"]["baseline_value"] == pytest.approx(models[1]["value"])
    low, high = compared["accuracy"]["difference_interval"]
    assert low <= compared["accuracy"]["difference"] <= high
    assert compared["accuracy"]["difference"] == pytest.approx(models[0]["value"] - models[1]["value"])
    assert capsys.readouterr().out.count("| tickets/") == len(rows) == 2 + len(compared)
    assert not list(project.glob("examples/tickets/labelled.csv"))  # only the clone contains it
