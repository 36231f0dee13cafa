"""Who was champion when, who asked for it and why: an append-only ledger in SQLite or PostgreSQL, named by its URL.

The ledger is the truth about production; the aliases in MLflow's registry follow it. Nothing in it is ever changed or deleted, which
the database itself refuses, and a chain of hashes shows (`chain.py`). Reads and writes `var/ledger.db`, or the database that the URL names.
"""

from components.ledger.book import Ledger
from components.ledger.chain import Chain, Head
from components.ledger.records import Action, Answer, Change, Entry, Outdated, Request, Retraining
from components.ledger.test_set_use import Wear

__all__ = ["Action", "Answer", "Chain", "Change", "Entry", "Head", "Ledger", "Outdated", "Request", "Retraining", "Wear"]
