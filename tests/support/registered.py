"""Stores with registered versions of two-layer models."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from mlflow import MlflowClient

from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import Environment, Version, register
from components.mlflow_store.tracking import run_key
from tests.support.finished import LINEAGE, make_finished
from tests.support.project import ROOT, write_params
from tests.support.promotion import new_environment


def make_registered(folder: Path, base: Path, tickets: pd.DataFrame, versions: int = 1) -> tuple[str, list[Path]]:
    """Register `versions` candidates of the model `tickets`; return the store's URI and their workspaces."""
    workspaces = [make_finished(folder / f"workspace{seed}", base, tickets, seed=seed) for seed in range(versions)]
    return make_registry(folder / "var", workspaces).mlflow, workspaces


def make_registry(var: Path, workspaces: Iterable[Path]) -> Environment:
    """Return an environment in `var` with a version of each workspace and an empty ledger."""
    environment = new_environment("local", var)
    for workspace in workspaces:
        register_workspace(workspace, environment.mlflow)
    return environment


def register_workspace(workspace: Path, uri: str, **options: Any) -> Version:
    """Register as after `record`, with an empty run instead of a recorded one, which takes longer to create."""
    client = MlflowClient(uri)
    run = client.create_run(ensure_experiment(client, uri, "tickets"))
    return register(workspace, uri, run_id=run.info.run_id, key=run_key(workspace), lineage=LINEAGE, **options)


def make_shop(folder: Path, base: Path, tickets: pd.DataFrame, versions: int = 1) -> str:
    """Create a project without code in `folder`, with versions of `tickets`, the first as champion; return the store's URI."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | {"name": "tickets"}
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("components", "flows"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    write_params(folder, params)
    uri, _ = make_registered(folder, base, tickets, versions)
    MlflowClient(uri).set_registered_model_alias("tickets", "champion", "1")
    return uri
