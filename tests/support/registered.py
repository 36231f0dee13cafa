"""One store with tiny registered versions, for every test of a process that asks them and changes nothing in it."""

import shutil
from pathlib import Path

import pandas as pd
import yaml
from mlflow import MlflowClient

from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import Version, register
from components.mlflow_store.tracking import run_key
from tests.support.finished import LINEAGE, make_finished, new_store
from tests.support.project import ROOT, write_params


def make_registered(folder: Path, base: Path, tickets: pd.DataFrame, versions: int = 1) -> tuple[str, list[Path]]:
    """Register `versions` candidates of the model `tickets`; return the store's URI and the workspaces they came from."""
    uri = new_store(folder / "var")
    workspaces = [make_finished(folder / f"workspace{seed}", base, tickets, seed=seed) for seed in range(versions)]
    for workspace in workspaces:
        _registered(workspace, uri)
    return uri, workspaces


def _registered(workspace: Path, uri: str) -> Version:
    """Register as after `record`; an empty run replaces the recorded one, which takes longer to create."""
    client = MlflowClient(uri)
    run = client.create_run(ensure_experiment(client, uri, "tickets"))
    return register(workspace, uri, run_id=run.info.run_id, key=run_key(workspace), lineage=LINEAGE)


def make_shop(folder: Path, base: Path, tickets: pd.DataFrame, versions: int = 1) -> str:
    """Make of `folder` a project without code, with versions of `tickets` of which the first is champion; return the store's URI."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")) | {"name": "tickets"}
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("components", "flows"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    write_params(folder, params)
    uri, _ = make_registered(folder, base, tickets, versions)
    MlflowClient(uri).set_registered_model_alias("tickets", "champion", "1")
    return uri
