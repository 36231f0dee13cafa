"""Record candidates as MLflow runs; called by the flows, never by a DVC stage.

Reads the outputs of the stages in a workspace; writes `var/mlflow.db` and `var/mlartifacts/`, or a tracking server.
"""

from components.mlflow_store.tracking.database import prepare_store
from components.mlflow_store.tracking.follow import LiveRun, follow
from components.mlflow_store.tracking.record import RecordedRun, attach_files, record, run_key
from components.mlflow_store.tracking.runs import close_orphaned_runs

__all__ = ["LiveRun", "RecordedRun", "attach_files", "close_orphaned_runs", "follow", "prepare_store", "record", "run_key"]
