"""Mutation tests: the tests of each gate detect inverted comparisons, lost signs, swapped models, constant outcomes, no correction."""

import ast
import json
import os
import subprocess
import sys

import pytest

from components.gates import FOLDER, available
from tests.support import mutants
from tests.support.project import ROOT

# Shared modules, and the tests that cover them.
SHARED = {"gates.support.noninferiority": ["champion", "best_champion"], "judge.multiple_testing": ["judge"]}
# Faults without an effect on any decision, without their line numbers.
HARMLESS = {
    "actual.reshape(expected.shape) - expected became expected - actual.reshape(expected.shape)",  # inside np.abs
    "mcnemar_two_sided(gained, lost) became mcnemar_two_sided(lost, gained)",  # symmetric
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("module", [*(f"gates.{name}" for name in available()), *SHARED])
def test_gate_tests_detect_every_fault(module):
    tests = [f"tests/unit/gates/test_{name}.py" for name in SHARED.get(module, [module.rpartition(".")[2]])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.mutants", module, *tests]
    completed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    report = json.loads(completed.stdout.splitlines()[-1])

    assert [fault for fault in report["survivors"] if fault.split(": ", 1)[1] not in HARMLESS] == []
    assert report["mutants"] >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", available())
def test_every_gate_has_mutants_and_tests(name):
    faults = [mutant.fault for mutant in mutants.mutants((FOLDER / f"{name}.py").read_text(encoding="utf-8"))]

    assert {"PASS always", "INCONCLUSIVE always", "FAIL always"} <= set(faults)
    assert (ROOT / f"tests/unit/gates/test_{name}.py").exists()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("low > threshold", "low > threshold became low <= threshold"),
        ("outcome is Outcome.FAIL", "outcome is Outcome.FAIL became outcome is not Outcome.FAIL"),
        ("-margin", "-margin became +margin"),
        ("candidate - champion", "candidate - champion became champion - candidate"),
        ("worse(candidate, champion)", "worse(candidate, champion) became worse(champion, candidate)"),
        ("LEVEL / at_most", "LEVEL / at_most became LEVEL / 1"),
        ("holm(family)", "holm(family) became __import__('numpy').asarray(family)"),
    ],
)
def test_kinds_of_faults(source, fault):
    (mutant,) = mutants.mutants(f"def judge(x):\n    return {source}\n")

    assert mutant.fault == f"line 2: {fault}"
    assert ast.unparse(mutant.tree).endswith(fault.split(" became ")[1])


def test_message_texts_get_no_fault():
    assert list(mutants.mutants("def message(x):\n    return 'more' if x > 1 else f'{-x:.3f}'\n")) == []
