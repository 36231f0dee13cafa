"""Who was champion when, who asked for it and why: an append-only ledger in SQLite or PostgreSQL, named by its URL.

The ledger is the truth about production; the aliases in MLflow's registry follow it. Nothing in it is ever changed or deleted, which
the database itself refuses, and a chain of hashes shows (`chain.py`). Reads and writes `var/ledger.db`, or the database that the URL names.
"""

from components.ledger.book import Ledger
from components.ledger.chain import Chain, ChainHead
from components.ledger.records import Action, Answer, Change, Entry, Request, Retraining, StaleVerdict
from components.ledger.test_set_use import Wear

__all__ = ["Action", "Answer", "Chain", "ChainHead", "Change", "Entry", "Ledger", "Request", "Retraining", "StaleVerdict", "Wear"]
