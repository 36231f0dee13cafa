"""Verdicts on good, bad and undecided candidates: every gate, in the whole pipeline."""

import json
import sqlite3
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.verdict import Verdict
from tests.support.project import edit, make_project, retune, status

pytestmark = pytest.mark.exhaustive

EVERY_GATE = {
    "servability": {"role": "required"},
    "behaviour": {"role": "blocking", "rows": 30, "cases": "behaviour.yaml"},
    "cost": {"role": "blocking", "max_seconds": 2},
    "forgetting": {"role": "blocking", "sets": ["regression.csv"]},
    "fairness": {"role": "blocking"},
}
FAST = {name: {"role": "off"} for name in ("servability", "behaviour", "cost", "forgetting")}  # they load every version once more
CASES = """
minimum_functionality:
  - {text: invoice payment refund charge, label: billing}
invariance:
  - {name: one word for another, replace: [[the, that]]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project with all gates on and a first champion; each test continues from the state that the previous one left."""
    folder = make_project(tmp_path_factory.mktemp("decisions") / "project", tiny_base, tickets)
    (folder / "behaviour.yaml").write_text(CASES, encoding="utf-8")
    tickets.tail(30).assign(id="").drop(columns=["id", "group"]).to_csv(folder / "regression.csv", index=False)
    edit(folder, {"gates": EVERY_GATE, "train": {"epochs": 10}})
    run(folder)
    return folder


def run(folder: Path) -> dict[str, object]:
    done = retune(folder, "run", "--inline", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def verdict(folder: Path) -> Verdict:
    return Verdict.read(folder / "reports")


def aliases(folder: Path) -> dict[str, int]:
    store = sqlite3.connect(f"file:{folder / 'var/mlflow.db'}?mode=ro", uri=True)
    try:
        return dict(store.execute("select alias, version from registered_model_aliases").fetchall())
    finally:
        store.close()


def more_data(folder: Path, tickets: pd.DataFrame, name: str) -> None:
    more = tickets.assign(id=name + tickets["id"], text=tickets["text"] + " again " + name).head(60)
    pd.concat([tickets, more]).drop(columns="group").to_csv(folder / "tickets.csv", index=False)


def test_first_champion_passes_every_gate(project: Path) -> None:
    first = verdict(project)

    assert first.outcome == "PASS"
    assert first.off == ()
    assert len(first.gates) >= 13
    by_name = {gate.gate: gate for gate in first.gates}
    assert by_name["servability"].outcome == "PASS"
    assert len(first.tested) >= 5
    assert aliases(project) == {"champion": 1}
    page = (project / "reports/index.html").read_text(encoding="utf-8")
    assert all(name in page for name in by_name)
    assert "Version 1 is the first champion." in page
    assert "models:/tickets/1" in (project / "reports/MODEL_CARD.md").read_text(encoding="utf-8")


def test_useless_candidate_fails_and_stays_registered(project: Path) -> None:
    edit(project, {"train": {"learning_rate": 1e-7, "epochs": 1}})
    result = run(project)

    assert (result["outcome"], result["promoted"], result["champion"], result["version"]) == ("FAIL", False, 1, 2)
    assert aliases(project) == {"champion": 1}
    why = retune(project, "why", "tickets", "2").stdout
    assert "FAIL" in why
    assert "champion version 1" in why
    failed = {gate.gate for gate in verdict(project).gates if gate.outcome == "FAIL"}
    assert "champion" in failed


def test_undecided_run_is_approved(project: Path, tickets: pd.DataFrame) -> None:
    edit(project, {"train": {"learning_rate": 5e-3, "epochs": 10}, "promotion": {"approval": "required"}, "gates": FAST})
    more_data(project, tickets, "a")
    result = run(project)

    assert result["waits_until"]
    assert (result["promoted"], result["champion"], result["version"]) == (False, 1, 3)
    assert aliases(project) == {"champion": 1, "challenger": 3}
    waiting, page = retune(project, "status").stdout, project / "reports/index.html"
    assert str(result["run"])[:12] in waiting
    assert f"retune approve {str(result['run'])[:12]}" in page.read_text(encoding="utf-8")

    approved = retune(project, "approve", str(result["run"])[:12], "--why", "it looks right", RETUNE_USER="ada")
    assert approved.returncode == 0, approved.stderr
    assert aliases(project) == {"champion": 3, "previous": 1}
    assert "Version 3 is the champion." in page.read_text(encoding="utf-8")
    history = retune(project, "history", "tickets").stdout
    assert "ada" in history
    assert "it looks right" in history
    assert retune(project, "approve", str(result["run"])[:12], "--why", "twice").returncode == 2


def test_rolled_back_version_is_not_promoted_again(project: Path) -> None:
    gone_back = retune(project, "rollback", "tickets", "--why", "wrong on refunds")
    assert gone_back.returncode == 0, gone_back.stderr
    edit(project, {"promotion": {"approval": "automatic"}})

    assert run(project)["champion"] == 1
    assert aliases(project)["champion"] == 1
    assert "wrong on refunds" in retune(project, "history", "tickets").stdout


def test_deleted_champion_makes_the_verdict_inconclusive(project: Path, tickets: pd.DataFrame) -> None:
    client = MlflowClient(f"sqlite:///{project / 'var/mlflow.db'}", f"sqlite:///{project / 'var/mlflow.db'}")
    client.delete_model_version("tickets", "1")
    more_data(project, tickets, "b")
    result = run(project)

    assert (result["outcome"], result["promoted"]) == ("INCONCLUSIVE", False)
    assert "champion version 1 cannot be scored: it was deleted from the registry" in str(result["reason"])
    assert "deleted" in retune(project, "status").stdout
    leakage = next(gate for gate in verdict(project).gates if gate.gate == "leakage")
    assert any("training rows of earlier champions (3)" in str(row[0]) for row in leakage.tables[0].rows)
    assert any(note.startswith("the training rows of version 1 are unavailable") for note in leakage.notes)


def test_used_up_test_set_is_inconclusive(project: Path) -> None:
    forced = retune(project, "promote", "tickets", "3", "--force", "--why", "the champion is gone")
    assert forced.returncode == 0, forced.stderr
    edit(project, {"gates": {"test_budget": {"at_most": 1}}, "train": {"seed": 8}})
    result = run(project)

    assert result["outcome"] in ("INCONCLUSIVE", "FAIL")
    (budget,) = [gate for gate in verdict(project).gates if gate.gate == "test_budget"]
    assert budget.outcome == "INCONCLUSIVE"
    assert "the test set is used up" in budget.reason
    assert status(project)["version"] == 3
