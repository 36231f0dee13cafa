"""One store with tiny registered versions, for every test of a process that asks them and changes nothing in it."""

from pathlib import Path

import pandas as pd
from mlflow import MlflowClient

from components.registry import Version, register
from components.store import experiment
from components.tracking import run_key
from tests.finished import LINEAGE, make_finished, new_store


def make_registered(folder: Path, base: Path, tickets: pd.DataFrame, versions: int = 1) -> tuple[str, list[Path]]:
    """Register `versions` candidates of the model `tickets`; return the store's URI and the workspaces they came from."""
    uri = new_store(folder / "var")
    workspaces = [make_finished(folder / f"workspace{seed}", base, tickets, seed=seed) for seed in range(versions)]
    for workspace in workspaces:
        _registered(workspace, uri)
    return uri, workspaces


def _registered(workspace: Path, uri: str) -> Version:
    """Register as after `record`; a bare run stands in for the recorded one, which takes longer to make."""
    client = MlflowClient(uri)
    run = client.create_run(experiment(client, uri, "tickets"))
    return register(workspace, uri, run_id=run.info.run_id, key=run_key(workspace), lineage=LINEAGE)
