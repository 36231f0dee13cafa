"""A registered model for the audit, built without a store but with a real ledger."""

from pathlib import Path
from typing import Any

from components.ledger import Ledger
from components.mlflow_store.registry import Version
from components.mlflow_store.registry.versions import KEY
from flows.audit.registered_model import RegisteredModel


def version(number: int, *aliases: str, **tags: str) -> Version:
    named = {name.replace("__", "."): value for name, value in tags.items()}
    return Version("tickets", number, f"run{number}", f"key{number}", True, aliases, {KEY: f"key{number}", **named})


def model_of(folder: Path, *versions: Version) -> RegisteredModel:
    return RegisteredModel("tickets", folder, f"sqlite:///{folder}/var/mlflow.db", f"sqlite:///{folder}/var/ledger.db", versions)


def promoted(folder: Path, *numbers: int, **more: Any) -> Ledger:
    """Return a ledger in which these versions became champion one after another."""
    ledger = Ledger(f"sqlite:///{folder}/var/ledger.db")
    for number in numbers:
        change = {"action": "promoted", "who": "ann", "why": "it is better", "outcome": "PASS", **more}
        ledger.append("tickets", expected="any", version=number, key=f"key{number}", **change)
    return ledger
