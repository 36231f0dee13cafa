"""Where versions live: a store of MLflow's and the ledger that goes with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Environment:
    """A registry and its ledger by their addresses: `staging`, `production`, or a project's own, `local`."""

    name: str
    mlflow: str
    ledger: str
