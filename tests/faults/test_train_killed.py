"""A training that is killed at a checkpoint and resumed by the same command."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from components.artifacts.training import Training
from components.artifacts.tuning_result import TunedSettings
from components.core.hashing import digest_folder
from tests.support.learn import make_learn
from tests.support.project import ROOT, environment

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 20, "learning_rate": 1e-3, "batch_size": 16, "threads": 1, "precision": "float32", "patience": 0}


@pytest.fixture
def workspace(tmp_path, tiny_base, tickets):
    make_learn(tmp_path / "learn", tiny_base, tickets)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"task": "text_classification", "train": TRAIN}))
    (tmp_path / "tuned").mkdir()
    TunedSettings(settings={}).write(tmp_path / "tuned")
    return tmp_path


def start(workspace, base, out):
    command = [sys.executable, "-m", "components", "train", "learn", str(base), "tuned", out]
    return subprocess.Popen(
        command, cwd=workspace, env=environment(ROOT, forks=True), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.005)


def test_killed_training_resumes_to_the_same_weights(workspace, tiny_base):
    whole = start(workspace, tiny_base, "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output

    killed = start(workspace, tiny_base, "killed")
    wait_for(lambda: len(list(workspace.glob("var/checkpoints/*/checkpoint-*/whole.json"))) == 2, killed)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (workspace / "killed" / "training.json").exists()

    again = start(workspace, tiny_base, "killed")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output

    record, expected = Training.read(workspace / "killed"), Training.read(workspace / "whole")
    histories = [
        [json.loads(line)["step"] for line in (workspace / out / "history.jsonl").read_text().splitlines()] for out in ("whole", "killed")
    ]
    assert 0 < record.resumed < record.steps == expected.steps == 240
    assert "resuming from" in output
    assert record.weights_sha256 == expected.weights_sha256
    assert digest_folder(workspace / "whole" / "model") == digest_folder(workspace / "killed" / "model")
    assert histories[0] == histories[1]
    assert "\r" not in output
    assert list((workspace / "var" / "checkpoints").iterdir()) == []
