"""MLflow runs, written by effects and never by a stage.

Reads the outputs of the stages in a workspace; writes `var/mlflow.db` and `var/mlartifacts/`, or a tracking server.
"""

from components.mlflow_store.tracking.database import prepare_store
from components.mlflow_store.tracking.follow import Followed, follow
from components.mlflow_store.tracking.record import RecordedRun, attach, record, run_key
from components.mlflow_store.tracking.runs import reconcile

__all__ = ["Followed", "RecordedRun", "attach", "follow", "prepare_store", "reconcile", "record", "run_key"]
