"""The token classification example: data conversion and settings."""

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.model import tasks
from components.training.trainer import TrainParams

EXAMPLE = Path(__file__).parents[3] / "examples" / "token_classification"
TEXT = """
\tThe/at County's/nn$-tl jury/nn-hl didn't/dod* say/vb and/or/cc ./.


\tUntagged/nil words/nns ./.
\tFin/fw-nn de/fw-in siècle/fw-nn --/-- he'll/pps+md not/* go/vb !/.-hl
Alone/rb
"""


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("make_data", EXAMPLE / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "corpus.tgz"
    with tarfile.open(path, "w:gz") as files:
        for name in ("package/cr02", "package/ca01", "package/README", "package/package.json"):
            entry = tarfile.TarInfo(name)
            content = TEXT.encode("latin-1")
            entry.size = len(content)
            files.addfile(entry, io.BytesIO(content))
    return path


def test_corpus_becomes_valid_rows(script, archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_data.py", str(tmp_path / "brown.jsonl"), "--archive", str(archive)])
    script.main()
    rows = [json.loads(line) for line in (tmp_path / "brown.jsonl").read_text(encoding="utf-8").splitlines()]
    cells = pd.DataFrame([{name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in row.items()} for row in rows])

    assert [(row["id"], row["group"], row["genre"]) for row in rows] == [
        *(("ca01-00", "ca01", "press"), ("ca01-01", "ca01", "press")),
        *(("cr02-00", "cr02", "humour"), ("cr02-01", "cr02", "humour")),
    ]
    assert rows[0]["tokens"] == ["The", "County's", "jury", "didn't", "say", "and/or", "."]
    assert rows[0]["tags"] == ["at", "nn$", "nn", "dod", "vb", "cc", "."]
    assert rows[1]["tags"] == ["fw", "fw", "fw", "--", "pps", "*", "vb", "."]
    assert "siècle" in rows[1]["tokens"]
    assert not tasks.load("token_classification", {"scheme": "plain"}).read(cells)[1]
    assert capsys.readouterr().out.endswith("4 sentences of 2 texts, 11 tags\n")


@pytest.mark.parametrize("name", ["params.yaml", "crf.yaml"])
def test_settings_match_the_task(name):
    settings = yaml.safe_load((EXAMPLE / name).read_text(encoding="utf-8"))
    task = tasks.load(settings["task"], settings["task_options"])
    gates = settings["gates"]

    assert settings["train"]["metric"] in task.validation_metrics
    assert TrainParams.parse(settings["train"], "train").metric == settings["tune"]["metric"]
    assert {gates[gate]["metric"] for gate in ("floor", "baseline", "champion", "best_champion")} <= set(task.test_metrics)
    assert gates["baseline"]["against"] == "best"


def test_examples_differ_only_in_the_head():
    linear, crf = (yaml.safe_load((EXAMPLE / name).read_text(encoding="utf-8")) for name in ("params.yaml", "crf.yaml"))

    assert {name for name in linear if linear[name] != crf[name]} == {"name", "task_options"}
    assert linear["task_options"] | {"head": "crf"} == crf["task_options"]
