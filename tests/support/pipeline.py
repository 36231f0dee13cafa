"""The whole pipeline of a task in one process: from a table to a judged version in a registry, on a tiny model."""

import json
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from components.artifacts.rows import read_rows
from components.data.base_model import pin_base
from components.data.preprocess.step import preprocess
from components.data.snapshot import take_snapshot
from components.data.validate.step import validate
from components.evaluation.evaluate import evaluate
from components.mlflow_store.registry import Version, register
from components.mlflow_store.tracking import record
from components.training.train import train
from components.training.tune.step import tune
from flows.project.params import Params, read_params
from flows.project.workspace import Workspace
from tests.support.finished import LINEAGE, new_store
from tests.support.project import ROOT, TINY, change, git


@dataclass(frozen=True)
class Case:
    """A task on little data: the source rows, the folder of the base model, and the settings that differ from the tiny project.

    The metric `measure` of the trained model exceeds that of `baseline` by at least `margin`. `bad` counts the quarantined rows by reason.
    """

    task: str
    rows: pd.DataFrame
    base: Path
    metric: str
    measure: str
    baseline: str
    bad: Mapping[str, int]
    margin: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)


def settings(case: Case, **train_changes: Any) -> dict[str, Any]:
    """Return the params.yaml of a case as a dictionary; most gates are informational."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    metric = {"metric": case.measure, "role": "informational"}
    gates = {
        "floor": metric | {"at_least": 0.01},
        "baseline": metric | {"against": case.baseline},
        "champion": metric | {"also": []},
        "best_champion": metric,
        "servability": {"role": "required", "rows": 12},
        "behaviour": {"role": "off", "cases": ""},
        "cost": {"role": "off"},
    }
    fixed = {"metric": case.metric, "epochs": 2, "evaluations_per_epoch": 3, "learning_rate": 5.0e-3, "batch_size": 16, "patience": 0}
    tiny = {
        **TINY,
        "name": case.task,
        "task": case.task,
        "task_options": dict(case.options),
        "snapshot": {"source": "rows.jsonl", "columns": {}},
    }
    tiny |= {
        "train": TINY["train"] | fixed,
        "tune": {"strategy": "search", "metric": case.metric},
        "base": {"model": str(case.base)},
    }
    params = change(params, tiny)
    params = change(params, {"gates": gates, "validate": {"min_rows": 20, "max_duplicate_share": 0.9}})
    return change(change(params, dict(case.changes)), {"train": train_changes})


def open_line(folder: Path, case: Case, **train_changes: Any) -> tuple[Workspace, Params]:
    """Create a workspace with the data and the settings of a case."""
    folder.mkdir(parents=True)
    rows = [{name: cell for name, cell in row.items() if isinstance(cell, str)} for row in case.rows.to_dict("records")]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "params.yaml").write_text(yaml.safe_dump(settings(case, **train_changes), sort_keys=False), encoding="utf-8")
    (folder / ".dvc").mkdir()
    (folder / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    git(folder, "init", "-q")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "start")
    return Workspace(folder, folder, folder / "params.yaml"), read_params(folder / "params.yaml")


def prepare(workspace: Workspace, params: Params) -> None:
    """Run the pipeline up to the training data."""
    root, task = workspace.root, params.made_task
    take_snapshot(root, root / "data/raw", snapshot=params.snapshot, required=task.columns)
    pin_base(root, root / "data/base", base=params.base)
    task_settings = {"task": params.task, "task_options": params.task_options}
    validate(root / "data/raw", root / "data/validated", validate=params.validation, **task_settings)
    preprocess(root / "data/validated", root / "data/base", root / "data/prepared", preprocess=params.preprocess, **task_settings)
    with chdir(root):  # studies and checkpoints are written below the working directory
        tune(root / "data/prepared/learn", root / "data/base", root / "models/tuned", tune=params.tune, train=params.train, **task_settings)


def learn(workspace: Workspace, params: Params) -> Path:
    """Train, and return the folder of the model."""
    root, task_settings = workspace.root, {"task": params.task, "task_options": params.task_options}
    with chdir(root):
        train(
            root / "data/prepared/learn",
            root / "data/base",
            root / "models/tuned",
            root / "models/trained",
            train=params.train,
            **task_settings,
        )
    return workspace.model


def assess(workspace: Workspace, params: Params) -> None:
    """Evaluate the trained model."""
    root, task_settings = workspace.root, {"task": params.task, "task_options": params.task_options}
    evaluate(
        workspace.model, root / "data/prepared", root / "data/base", root / "reports/evaluation", evaluate=params.evaluate, **task_settings
    )


def enter(workspace: Workspace, params: Params) -> tuple[str, Version]:
    """Record and register the candidate in a new store; return the store's URI and the version."""
    uri = new_store(workspace.var)
    lineage = LINEAGE.model_copy(update={"model": params.name})
    run = record(workspace.root, uri, lineage=lineage, params={"task": params.task})
    return uri, register(workspace.root, uri, run_id=run.run_id, key=run.key, lineage=lineage)


def tested_rows(workspace: Workspace) -> pd.DataFrame:
    """Return the test rows."""
    return read_rows(workspace.root / "data/prepared/test/test.parquet")
