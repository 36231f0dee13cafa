"""MLflow's model registry: register a version once, attach its verdict, verify its package, and promote it through the ledger.

Reads a workspace, a recorded run and the ledger; writes versions, their packages and verdicts, ledger entries, and the aliases
`champion`, `challenger` and `previous`.
"""

from components.mlflow_store.registry.aliases import accept_ledger, reconcile, refresh_ledger_head
from components.mlflow_store.registry.artifact_access import models
from components.mlflow_store.registry.environments import Environment, copy_version, judged_elsewhere_note
from components.mlflow_store.registry.latency import measure, package_bytes
from components.mlflow_store.registry.ledger_head import HeadCheck
from components.mlflow_store.registry.ledger_head import verify as verify_ledger
from components.mlflow_store.registry.promote import Decision, Promotion, champion_stack, promote, rollback, swap_champion
from components.mlflow_store.registry.register import register
from components.mlflow_store.registry.servability_probe import probe_server, sample_evenly
from components.mlflow_store.registry.verdicts import attach_verdict, read_verdict, record_decision, reopen
from components.mlflow_store.registry.verify import (
    VerifiedVersion,
    checked_package,
    model_folder,
    predict,
    read_cache,
    resolve,
    spec_of,
    verify,
    write_cache,
)
from components.mlflow_store.registry.versions import BASE_SOURCE, CHALLENGER, CHAMPION, PREVIOUS, Version, champion, status, versions
from components.mlflow_store.registry.worker_client import Session, predictions_of
