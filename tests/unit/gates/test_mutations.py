"""The tests of each gate notice a fault in it: a comparison turned, a sign lost, two models exchanged, PASS always, no correction."""

import ast
import json
import os
import subprocess
import sys

import pytest

from components.gates import FOLDER, available
from tests.support import mutants
from tests.support.project import ROOT

# What gates share, and the tests that it is behind.
SHARED = {"gates.support.noninferiority": ["champion", "best_champion"], "judge.multiple_testing": ["judge"]}
# Faults that change nothing which a decision hangs on, without the line they are in.
HARMLESS = {"found.reshape(wanted.shape) - wanted became wanted - found.reshape(wanted.shape)"}  # its absolute value is taken


@pytest.mark.exhaustive
@pytest.mark.parametrize("module", [*(f"gates.{name}" for name in available()), *SHARED])
def test_every_fault_turns_the_gates_own_tests_red(module):
    tests = [f"tests/unit/gates/test_{name}.py" for name in SHARED.get(module, [module.rpartition(".")[2]])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.support.mutants", module, *tests]
    asked = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    found = json.loads(asked.stdout.splitlines()[-1])

    assert [fault for fault in found["survivors"] if fault.split(": ", 1)[1] not in HARMLESS] == []
    assert found["mutants"] >= 3


@pytest.mark.parametrize("name", available())
def test_every_gate_has_faults_of_three_kinds_and_tests_of_its_own(name):
    faults = [one.fault for one in mutants.mutants((FOLDER / f"{name}.py").read_text(encoding="utf-8"))]

    assert {"PASS always", "INCONCLUSIVE always", "FAIL always"} <= set(faults)
    assert (ROOT / f"tests/unit/gates/test_{name}.py").exists()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("low > threshold", "low > threshold became low <= threshold"),
        ("outcome is Outcome.FAIL", "outcome is Outcome.FAIL became outcome is not Outcome.FAIL"),
        ("-margin", "-margin became +margin"),
        ("mine - theirs", "mine - theirs became theirs - mine"),
        ("worse(candidate, champion)", "worse(candidate, champion) became worse(champion, candidate)"),
        ("LEVEL / at_most", "LEVEL / at_most became LEVEL / 1"),
        ("holm(family)", "holm(family) became __import__('numpy').asarray(family)"),
    ],
)
def test_what_a_fault_is(source, fault):
    (mutant,) = mutants.mutants(f"def judged(x):\n    return {source}\n")

    assert mutant.fault == f"line 2: {fault}"
    assert ast.unparse(mutant.tree).endswith(fault.split(" became ")[1])


def test_what_is_only_written_for_a_reader_gets_no_fault():
    assert list(mutants.mutants("def said(x):\n    return 'more' if x > 1 else f'{-x:.3f}'\n")) == []
