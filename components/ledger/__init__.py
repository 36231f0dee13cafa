"""The ledger: an append-only record of champions, approvals and scheduled runs in SQLite or PostgreSQL.

The ledger is authoritative for production; the aliases in MLflow's registry follow it. Rows are never changed or deleted: database
triggers refuse it, and a hash chain detects it (`chain.py`). Reads and writes `var/ledger.db` or the database of the URL.
"""

from components.ledger.book import Ledger
from components.ledger.chain import Chain, ChainHead
from components.ledger.records import Action, Answer, Change, Entry, Request, Retraining, StaleVerdict
from components.ledger.test_set_use import PriorUse

__all__ = ["Action", "Answer", "Chain", "ChainHead", "Change", "Entry", "Ledger", "PriorUse", "Request", "Retraining", "StaleVerdict"]
