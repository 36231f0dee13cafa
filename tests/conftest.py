"""Fixtures of all tests: a two-layer model in hub layout, a small table that can be learnt, a PostgreSQL server."""

import gc
import os

# Set before torch is imported: one thread, without busy waiting.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0", TOKENIZERS_PARALLELISM="false")
os.environ.update(
    DO_NOT_TRACK="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    DVC_NO_ANALYTICS="1",
    HF_HUB_OFFLINE="1",
    GX_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
)

import signal
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support import fork_server
from tests.support.postgres import postgres as postgres  # a fixture for every test
from tests.support.tickets import WORDS, make_tickets

# Child processes inherit ignored signals: under nohup or in the background, tests of signals would not end.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


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


def pytest_collection_finish() -> None:
    """Exclude the imported libraries from garbage collection; a training collects twice, which halves the time of its test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tickets() -> pd.DataFrame:
    """240 support tickets of three classes, in 80 groups of three; every cell is text, as in a snapshot."""
    return make_tickets()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer BERT with a WordPiece tokenizer for the words of the tickets, in the layout of data/base."""
    from tests.support.tiny import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("base"), WORDS)


@pytest.fixture(scope="module")
def forks() -> Iterator[None]:
    """Let the fork server run the workers that the tests of a module start to query registered versions."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in fork_server.variables(os.environ.get("PYTHONPATH", "")).items():
            patched.setenv(name, value)
        yield
