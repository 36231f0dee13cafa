"""What every test may use: a random two-layer model in hub layout, and a small table that can be learnt."""

import os

# Before torch is imported anywhere: one thread, and none that spins while it waits.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", TOKENIZERS_PARALLELISM="false")
os.environ.update(
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    GX_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)

import random
import signal
from pathlib import Path

import pandas as pd
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.postgres import postgres as postgres  # a fixture for every test

# Children inherit what is ignored: under nohup or in the background of a script, tests of signals would wait for ever.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

TOPICS = {
    "billing": ["invoice", "payment", "refund", "charge", "card", "price", "cost", "money", "bill", "account"],
    "network": ["router", "cable", "signal", "wifi", "slow", "offline", "connection", "speed", "modem", "outage"],
    "device": ["screen", "battery", "keyboard", "camera", "button", "broken", "cracked", "charger", "case", "lens"],
}
FILLER = ["the", "my", "is", "please", "help", "with", "today", "again", "since", "new", "old", "very", "customer", "says", "that", "it"]


class ByModuleOrTask(LoadScopeScheduling):
    """A worker takes a whole module, because its fixtures are expensive; the module that runs every task is divided by task."""

    def _split_scope(self, nodeid: str) -> str:
        module, _, rest = nodeid.partition("::")
        parameter = rest.partition("[")[2].rstrip("]").partition("-")[0]
        return f"{module}[{parameter}]" if module.endswith("integration/test_tasks.py") else module


@pytest.hookimpl(optionalhook=True)  # the mutation tests run without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Distribute tests by `ByModuleOrTask`."""
    return ByModuleOrTask(config, log)


@pytest.fixture(scope="session")
def tickets() -> pd.DataFrame:
    """240 support tickets of three classes, in 80 groups of three; every cell is text, as in a snapshot."""
    return make_tickets()


def make_tickets() -> pd.DataFrame:
    rng = random.Random(1)
    rows = []
    for number in range(240):
        label = sorted(TOPICS)[(number // 3) % 3]
        words = rng.sample(TOPICS[label], 3) + rng.sample(FILLER, 5)
        rng.shuffle(words)
        rows.append({"id": f"t{number:03d}", "group": f"g{number // 3:02d}", "text": " ".join(words), "label": label})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT with a WordPiece tokenizer over the tickets' words, laid out as data/base is."""
    from tests.support.tiny import make_tiny_base

    words = sorted({word for topic in TOPICS.values() for word in topic} | set(FILLER))
    return make_tiny_base(tmp_path_factory.mktemp("base"), words)
