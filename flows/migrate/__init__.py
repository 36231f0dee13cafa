"""An embedded registry carried into a shared stack with nothing lost: runs, versions, artifacts, ledger, studies and DVC's cache.

What is here is only read; what is there must be empty, or be what an earlier migration of this very state left.
"""

from flows.migrate.migrate import Migrated, migrate

__all__ = ["Migrated", "migrate"]
