"""MLflow's registry: register once, attach the verdict, verify from the package, promote by the ledger.

Reads a workspace, a recorded run and the ledger; writes versions, their packages and verdicts, the ledger's entries, and the aliases
`champion`, `challenger` and `previous`.
"""

from components.registry.aliases import accept, confirm, reconcile
from components.registry.ask import Session, predictions_of
from components.registry.environments import Environment, copy_version, judged_elsewhere
from components.registry.ledger_head import Checked
from components.registry.ledger_head import verify as verify_ledger
from components.registry.online import become_server, listen
from components.registry.promote import Decision, Expected, Promotion, promote, rollback, standing, swap
from components.registry.register import register
from components.registry.serve import evenly, serve_and_ask
from components.registry.stored import models
from components.registry.timing import measure, package_bytes
from components.registry.verdicts import attach_verdict, note_answer, read_verdict, reopen
from components.registry.verify import Verified, inspected, keep, kept, model_folder, predict, resolve, score_version, spec_of, verify
from components.registry.versions import BASE_SOURCE, CHALLENGER, CHAMPION, PREVIOUS, Status, Version, champion, status, versions

__all__ = [
    "BASE_SOURCE",
    "CHALLENGER",
    "CHAMPION",
    "PREVIOUS",
    "Checked",
    "Decision",
    "Environment",
    "Expected",
    "Promotion",
    "Session",
    "Status",
    "Verified",
    "Version",
    "accept",
    "attach_verdict",
    "become_server",
    "champion",
    "confirm",
    "copy_version",
    "evenly",
    "inspected",
    "judged_elsewhere",
    "keep",
    "kept",
    "listen",
    "measure",
    "model_folder",
    "models",
    "note_answer",
    "package_bytes",
    "predict",
    "predictions_of",
    "promote",
    "read_verdict",
    "reconcile",
    "register",
    "reopen",
    "resolve",
    "rollback",
    "score_version",
    "serve_and_ask",
    "spec_of",
    "standing",
    "status",
    "swap",
    "verify",
    "verify_ledger",
    "versions",
]
