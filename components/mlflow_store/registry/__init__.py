"""MLflow's registry: register once, attach the verdict, verify from the package, promote by the ledger.

Reads a workspace, a recorded run and the ledger; writes versions, their packages and verdicts, the ledger's entries, and the aliases
`champion`, `challenger` and `previous`.
"""

from components.mlflow_store.registry.aliases import accept, confirm, reconcile
from components.mlflow_store.registry.artifact_access import models
from components.mlflow_store.registry.environments import Environment, copy_version, judged_elsewhere
from components.mlflow_store.registry.latency import measure, package_bytes
from components.mlflow_store.registry.ledger_head import HeadCheck
from components.mlflow_store.registry.ledger_head import verify as verify_ledger
from components.mlflow_store.registry.promote import Decision, Expected, Promotion, current_champion, promote, rollback, swap_champion
from components.mlflow_store.registry.register import register
from components.mlflow_store.registry.servability_probe import evenly, serve_and_ask
from components.mlflow_store.registry.verdicts import attach_verdict, read_verdict, record_decision, reopen
from components.mlflow_store.registry.verify import (
    VerifiedVersion,
    inspected,
    keep,
    kept,
    model_folder,
    predict,
    resolve,
    score_version,
    spec_of,
    verify,
)
from components.mlflow_store.registry.versions import (
    BASE_SOURCE,
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    Version,
    VersionStatus,
    champion,
    status,
    versions,
)
from components.mlflow_store.registry.worker_client import Session, predictions_of

__all__ = [
    "BASE_SOURCE",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "Decision",
    "Environment",
    "Expected",
    "HeadCheck",
    "Promotion",
    "Session",
    "VerifiedVersion",
    "Version",
    "VersionStatus",
    "accept",
    "attach_verdict",
    "champion",
    "confirm",
    "copy_version",
    "current_champion",
    "evenly",
    "inspected",
    "judged_elsewhere",
    "keep",
    "kept",
    "measure",
    "model_folder",
    "models",
    "package_bytes",
    "predict",
    "predictions_of",
    "promote",
    "read_verdict",
    "reconcile",
    "record_decision",
    "register",
    "reopen",
    "resolve",
    "rollback",
    "score_version",
    "serve_and_ask",
    "spec_of",
    "status",
    "swap_champion",
    "verify",
    "verify_ledger",
    "versions",
]
