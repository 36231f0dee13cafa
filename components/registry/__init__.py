"""MLflow's registry: register once, verify from the package, promote by alias.

Reads a workspace and a recorded run; writes versions, their packages and the aliases `champion` and `previous`.
"""

from components.registry.promote import Promotion, Verified, predict, promote, score_version, verify
from components.registry.register import register
from components.registry.versions import CHAMPION, Status, Version, champion, status, versions

__all__ = [
    "CHAMPION",
    "Promotion",
    "Status",
    "Verified",
    "Version",
    "champion",
    "predict",
    "promote",
    "register",
    "score_version",
    "status",
    "verify",
    "versions",
]
