"""A search that is killed within a trial and resumed by the same command."""

import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
import yaml

from components.artifacts.tuning_result import BestTrial
from tests.support.learn import make_learn
from tests.support.project import ROOT, environment

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PARAMS = {
    "task": "text_classification",
    "train": {"learning_rate": "tuned", "batch_size": 8, "threads": 1, "precision": "float32"},
    "tune": {
        "trials": 4,
        "minutes": 10,
        "share": 0.5,
        "epochs": 6,
        "evaluations": 3,
        "first": {"learning_rate": 1e-3},
        "space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}},
    },
}


@pytest.fixture
def workspace(tmp_path, tiny_base, tickets):
    make_learn(tmp_path / "learn", tiny_base, tickets)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def start(workspace, base, out, var):
    command = [sys.executable, "-m", "components", "tune", "learn", str(base), out]
    variables = environment(ROOT, forks=True, RETUNE_VAR=var)
    return subprocess.Popen(command, cwd=workspace, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def entries(folder):
    """Return the complete entries of the journals in `folder`."""
    return [
        json.loads(line)
        for path in folder.glob("optuna/*.log")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]


def trials(out):
    rows = pq.read_table(out / "trials.parquet").to_pylist()
    return [(row["state"], row["value"], row["params"], row["intermediate"]) for row in rows if row["note"] != "interrupted"]


def test_killed_search_resumes_to_the_same_trials(workspace, tiny_base):
    whole = start(workspace, tiny_base, "whole", "var")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output

    killed = start(workspace, tiny_base, "killed", "other")
    deadline = time.monotonic() + 300
    # The third trial has reported its first evaluation (operation 7 sets an intermediate value): it is cut off in the middle.
    while not any(entry["op_code"] == 7 and entry["trial_id"] == 2 for entry in entries(workspace / "other")):
        assert killed.poll() is None, killed.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    again = start(workspace, tiny_base, "killed", "other")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output

    best, expected = BestTrial.read(workspace / "killed"), BestTrial.read(workspace / "whole")
    assert "trial 2 was interrupted" in output
    assert trials(workspace / "killed") == trials(workspace / "whole")
    assert best.complete + best.pruned + best.failed == 4
    assert (best.value, best.settings) == (expected.value, expected.settings)
