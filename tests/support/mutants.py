"""Mutation tests for gates: insert a fault into a gate and expect its own tests to fail.

`python -m tests.support.mutants MODULE TESTS…` prints the number of mutants of `components.MODULE` and the surviving ones as JSON. Each
mutant runs in a fork of one process with third-party packages imported; the fork imports our code again, with the fault.
"""

import ast
import copy
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import pytest

from components.gates import available

ROOT = Path(__file__).parents[2]
MOST = 2  # mutants per kind of fault in a gate, evenly spread over the file
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Lt: ast.GtE, ast.LtE: ast.Gt}
PAIRS = [
    {"candidate_correct", "champion_correct"},
    {"candidate_passed", "champion_passed"},
    {"candidate_terms", "champion_terms"},
    {"gained", "lost"},
    {"candidate", "champion"},
    {"candidate", "other"},
]
CONSTANT = """
_original = decide

def decide(evidence, params):
    return _original(evidence, params).model_copy(update={update})
"""


@dataclass(frozen=True)
class Mutant:
    """A fault, described in one line, and the module that contains it."""

    fault: str
    tree: ast.Module


def mutants(source: str, most: int = MOST) -> Iterator[Mutant]:
    """Yield the module with one fault at a time, at most `most` per kind."""
    tree = ast.parse(source)
    if any(isinstance(node, ast.FunctionDef) and node.name == "decide" for node in tree.body):
        yield from _constant(source)
    for change in (_flip, _drop_sign, _swap_models, _drop_division, _drop_correction):
        indices = [index for index, node in enumerate(_arithmetic(tree)) if change(copy.deepcopy(node))]
        step = max(len(indices) / most, 1)
        for index in [indices[int(number * step)] for number in range(min(len(indices), most))]:
            changed = copy.deepcopy(tree)
            node = list(_arithmetic(changed))[index]
            before = ast.unparse(node)
            change(node)
            yield Mutant(f"line {node.lineno}: {before} became {ast.unparse(node)}", ast.fix_missing_locations(changed))


def _constant(source: str) -> Iterator[Mutant]:
    for outcome in ("PASS", "INCONCLUSIVE", "FAIL"):
        update = f'{{"outcome": __import__("components.artifacts.verdict", fromlist=["Outcome"]).Outcome.{outcome}, "hypotheses": ()}}'
        yield Mutant(f"{outcome} always", ast.parse(source + CONSTANT.replace("{update}", update)))
    if "hypotheses=" in source:
        yield Mutant("no hypotheses", ast.parse(source + CONSTANT.replace("{update}", '{"hypotheses": ()}')))


def _arithmetic(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the expressions inside functions, without message texts."""
    for function in tree.body:
        if isinstance(function, ast.FunctionDef | ast.ClassDef):
            yield from _expressions(function)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr | ast.arg) or (isinstance(child, ast.IfExp) and _is_text(child)):
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from _expressions(child)


def _is_text(choice: ast.IfExp) -> bool:
    return any(
        isinstance(end, ast.JoinedStr) or (isinstance(end, ast.Constant) and isinstance(end.value, str))
        for end in (choice.body, choice.orelse)
    )


def _flip(node: ast.expr) -> bool:
    """Invert a comparison of numbers, or of an outcome or a role."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is) and isinstance(node.comparators[0], ast.Attribute):
        node.ops[0] = ast.IsNot()
        return True
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        node.ops[0] = OPPOSITE[type(node.ops[0])]()
        return True
    return False


def _drop_sign(node: ast.expr) -> bool:
    """Remove a minus sign, or swap the operands of a difference."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        node.op = ast.UAdd()
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and not isinstance(node.right, ast.Constant):
        node.left, node.right = node.right, node.left
        return True
    return False


def _swap_models(node: ast.expr) -> bool:
    """Swap an argument of the candidate with one of the champion."""
    if not isinstance(node, ast.Call):
        return False
    for first, second in zip(range(len(node.args)), range(1, len(node.args)), strict=False):
        if _owners(node.args[first]) | _owners(node.args[second]) in PAIRS and _owners(node.args[first]) != _owners(node.args[second]):
            node.args[first], node.args[second] = node.args[second], node.args[first]
            return True
    return False


def _owners(node: ast.expr) -> set[str]:
    children = list(ast.walk(node))
    names = {child.id for child in children if isinstance(child, ast.Name)}
    names |= {child.attr for child in children if isinstance(child, ast.Attribute)}
    return names & set().union(*PAIRS)


def _drop_division(node: ast.expr) -> bool:
    """Remove a division, such as that of the level by the test-set budget."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not isinstance(node.left, ast.Constant):
        node.right = ast.Constant(1)
        return True
    return False


def _drop_correction(node: ast.expr) -> bool:
    """Remove Holm's correction."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "holm":
        node.func = ast.parse("__import__('numpy').asarray", mode="eval").body
        return True
    return False


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads one module from a tree instead of its file."""

    tree: ast.Module

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module with the fault."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.loader = name, _Loader(name, str(path))
        self.loader.tree = tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self.loader) if fullname == self.name else None


def passes(tests: Sequence[str]) -> bool:
    """Run the tests in this process, quietly, until the first failure."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        options = [
            "-c",
            os.devnull,
            "--rootdir",
            str(ROOT),
            "-p",
            "no:cacheprovider",
            "--assert=plain",  # pytest's own finder would load the file of a module whose name begins with test_, such as gates.test_budget
        ]  # without plugins, which take ten times as long as the tests
        return pytest.main([*options, "-x", "-q", "-m", "not slow", *tests]) == 0


def in_a_fork(check: Callable[[], bool]) -> bool:
    """Run the check in a child process, so that its imports do not remain."""
    child = os.fork()
    if child == 0:
        os._exit(0 if check() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def survivors(module: str, tests: Sequence[str]) -> dict[str, object]:
    """Return the number of mutants, and the faults that no test detects."""
    path = ROOT / "components" / f"{module.replace(chr(46), chr(47))}.py"
    for test in tests:
        importlib.import_module(test.removesuffix(".py").replace("/", "."))
    for name in [name for name in sys.modules if name.startswith(("components.gates", "components.judge", "tests.")) and name != __name__]:
        del sys.modules[name]

    def survives(mutant: Mutant) -> bool:
        sys.meta_path.insert(0, _Finder(f"components.{module}", path, mutant.tree))
        return passes(tests)

    if not in_a_fork(lambda: passes(tests)):
        raise SystemExit(f"{' '.join(tests)} fail without a fault")
    most = MOST if module.removeprefix("gates.") in available() else 3 * MOST  # more for shared code
    every = list(mutants(path.read_text(encoding="utf-8"), most))
    return {"mutants": len(every), "survivors": [mutant.fault for mutant in every if in_a_fork(lambda m=mutant: survives(m))]}


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    print(json.dumps(survivors(sys.argv[1], sys.argv[2:])))
