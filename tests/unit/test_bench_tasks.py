"""The measurement of the worked examples: which there are, and what is read from a finished one."""

import json
from pathlib import Path

import pytest
import yaml

from bench.tasks import commands, examples, figures, table
from components import tasks
from flows.params import read_params
from tests.project import ROOT


def test_every_task_has_an_example_whose_readme_runs_it() -> None:
    lines = [line for folder in examples(ROOT) for line in commands(folder / "README.md") if line[0] == "retune"]

    assert {read_params(ROOT / line[line.index("--params") + 1]).task for line in lines} == set(tasks.available())


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
    line = table([found | {"seconds": 61.2, "peak_memory_gib": 1.5}])[-1]
    assert "| entity_f1 | 0.800 | frequent_tag | 0.500 | +0.300 | +0.200 to +0.400 | 61 s | 1.50 GiB |" in line
