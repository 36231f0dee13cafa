"""Faults put into a gate on purpose: its own tests must turn red at each of them.

`python -m tests.support.mutants MODULE TESTS…` prints, as JSON, how many mutants of `components.MODULE` there are and which survive
files. Each mutant lives in a fork of one warm process: what is third-party is imported once, our own code anew with the fault in it.
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
MOST = 2  # mutants of one kind of fault in a gate, evenly spread over it
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Lt: ast.GtE, ast.LtE: ast.Gt}
PAIRS = [{"mine", "theirs"}, {"own", "other"}, {"gained", "lost"}, {"candidate", "champion"}, {"candidate", "other"}]
SAYS_ALWAYS = """
_honest = decide

def decide(evidence, params):
    return _honest(evidence, params).model_copy(update={update})
"""


@dataclass(frozen=True)
class Mutant:
    """A fault, told in a line, and the module with it."""

    fault: str
    tree: ast.Module


def mutants(source: str, most: int = MOST) -> Iterator[Mutant]:
    """Yield the module with one fault at a time, at most `most` of a kind."""
    tree = ast.parse(source)
    if any(isinstance(node, ast.FunctionDef) and node.name == "decide" for node in tree.body):
        yield from _always(source)
    for change in (_flipped, _unsigned, _exchanged, _undivided, _uncorrected):
        found = [place for place, node in enumerate(_arithmetic(tree)) if change(copy.deepcopy(node))]
        step = max(len(found) / most, 1)
        for place in [found[int(number * step)] for number in range(min(len(found), most))]:
            changed = copy.deepcopy(tree)
            node = list(_arithmetic(changed))[place]
            before = ast.unparse(node)
            change(node)
            yield Mutant(f"line {node.lineno}: {before} became {ast.unparse(node)}", ast.fix_missing_locations(changed))


def _always(source: str) -> Iterator[Mutant]:
    for outcome in ("PASS", "INCONCLUSIVE", "FAIL"):
        update = f'{{"outcome": __import__("components.artifacts.verdict", fromlist=["Outcome"]).Outcome.{outcome}, "hypotheses": ()}}'
        yield Mutant(f"{outcome} always", ast.parse(source + SAYS_ALWAYS.replace("{update}", update)))
    if "hypotheses=" in source:
        yield Mutant("nothing to fail by", ast.parse(source + SAYS_ALWAYS.replace("{update}", '{"hypotheses": ()}')))


def _arithmetic(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the expressions inside functions, without what is only written for a reader."""
    for function in tree.body:
        if isinstance(function, ast.FunctionDef | ast.ClassDef):
            yield from _expressions(function)


def _expressions(node: ast.AST) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.JoinedStr | ast.arg) or (isinstance(child, ast.IfExp) and _writes(child)):
            continue
        if isinstance(child, ast.expr):
            yield child
        yield from _expressions(child)


def _writes(choice: ast.IfExp) -> bool:
    return any(
        isinstance(end, ast.JoinedStr) or (isinstance(end, ast.Constant) and isinstance(end.value, str))
        for end in (choice.body, choice.orelse)
    )


def _flipped(node: ast.expr) -> bool:
    """Turn a comparison of numbers, or of an outcome or a role, into its opposite."""
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is) and isinstance(node.comparators[0], ast.Attribute):
        node.ops[0] = ast.IsNot()
        return True
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        node.ops[0] = OPPOSITE[type(node.ops[0])]()
        return True
    return False


def _unsigned(node: ast.expr) -> bool:
    """Take a minus sign away, or turn a difference round."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        node.op = ast.UAdd()
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and not isinstance(node.right, ast.Constant):
        node.left, node.right = node.right, node.left
        return True
    return False


def _exchanged(node: ast.expr) -> bool:
    """Exchange what belongs to the candidate and what belongs to the champion."""
    if not isinstance(node, ast.Call):
        return False
    for first, second in zip(range(len(node.args)), range(1, len(node.args)), strict=False):
        if _owners(node.args[first]) | _owners(node.args[second]) in PAIRS and _owners(node.args[first]) != _owners(node.args[second]):
            node.args[first], node.args[second] = node.args[second], node.args[first]
            return True
    return False


def _owners(node: ast.expr) -> set[str]:
    known = set().union(*PAIRS)
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)} | {
        one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)
    }
    return names & known


def _undivided(node: ast.expr) -> bool:
    """Leave a division out: the level of a look is then that of all looks."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not isinstance(node.left, ast.Constant):
        node.right = ast.Constant(1)
        return True
    return False


def _uncorrected(node: ast.expr) -> bool:
    """Drop the correction."""
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
    """Finds the one module that has a fault."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.loader = name, _Loader(name, str(path))
        self.loader.tree = tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self.loader) if fullname == self.name else None


def passes(tests: Sequence[str]) -> bool:
    """Run the tests in this process, quietly, until the first that fails."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        bare = ["-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider"]  # plugins take ten times as long as the tests
        return pytest.main([*bare, "-x", "-q", "-m", "not slow", *tests]) == 0


def in_a_fork(question: Callable[[], bool]) -> bool:
    """Ask in a child process, so that what it imports is gone with it."""
    child = os.fork()
    if child == 0:
        os._exit(0 if question() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def survivors(module: str, tests: Sequence[str]) -> dict[str, object]:
    """Return how many mutants there are, and the faults that no test notices."""
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
    every = list(
        mutants(path.read_text(encoding="utf-8"), MOST if module.removeprefix("gates.") in available() else 3 * MOST)
    )  # more of what gates share
    return {"mutants": len(every), "survivors": [mutant.fault for mutant in every if in_a_fork(lambda m=mutant: survives(m))]}


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    print(json.dumps(survivors(sys.argv[1], sys.argv[2:])))
