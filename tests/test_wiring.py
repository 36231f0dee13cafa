"""dvc.yaml matches the code: if a helper is missing in `deps`, editing it would not rerun the stage."""

import ast
import inspect
import re
from pathlib import Path

import grimp
import pytest
import yaml

from components.__main__ import find
from components.model import methods
from components.model.tasks import available
from components.steps import STEPS

ROOT = Path(__file__).parent.parent
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
PIPELINE = DVC["stages"]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("components", cache_dir=None)


def closure(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return the files of a module and its import closure in `components`, including packages' __init__."""
    modules = {module, *graph.find_upstream_modules(module)}
    if module in graph.modules:
        modules |= {child for child in graph.find_descendants(module)}
        for child in list(modules):
            modules |= graph.find_upstream_modules(child)
    parents = {".".join(name.split(".")[:depth]) for name in modules for depth in range(1, name.count(".") + 1)}
    return {file_of(name) for name in modules | parents}


def file_of(module: str) -> str:
    path = ROOT / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return source.relative_to(ROOT).as_posix()


def expand(dependency: str) -> set[str]:
    path = ROOT / dependency
    return {p.relative_to(ROOT).as_posix() for p in path.rglob("*.py")} if path.is_dir() else {dependency}


def code_of(stage: str, task: str) -> set[str]:
    deps = [dep.replace("${task}", task) for dep in PIPELINE[stage]["deps"]]
    return {file for dep in deps if dep.startswith("components") for file in expand(dep)}


def needed(graph: grimp.ImportGraph, stage: str, task: str) -> set[str]:
    files = closure(graph, STEPS[stage].removesuffix(".step"))
    if any("tasks" in dep for dep in PIPELINE[stage]["deps"]):
        files |= closure(graph, f"components.model.tasks.{task}")
    if file_of("components.model.methods") in files:  # loaded by name: settings may name any of them
        files = files.union(*(closure(graph, f"components.model.methods.{name}") for name in methods.available()))
    return files


def test_stages_in_dvc_yaml_are_the_steps() -> None:
    assert tuple(PIPELINE) == tuple(STEPS)


@pytest.mark.parametrize("task", available())
@pytest.mark.parametrize("stage", STEPS)
def test_deps_contain_the_import_closure_of_each_step(graph: grimp.ImportGraph, stage: str, task: str) -> None:
    missing = needed(graph, stage, task) - code_of(stage, task) - EMPTY
    deps = [dep.replace("${task}", task) for dep in PIPELINE[stage]["deps"] if dep.startswith("components")]
    superfluous = [dep for dep in deps if not expand(dep) & needed(graph, stage, task)]

    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(missing)}"
    assert not superfluous, f"{stage} does not import: {superfluous}"


@pytest.mark.parametrize("stage", STEPS)
def test_steps_that_load_a_task_depend_on_its_file(stage: str) -> None:
    source = "".join((ROOT / file).read_text(encoding="utf-8") for file in code_of(stage, available()[0]) if f"/{stage}" in file)
    loads = "tasks" in {alias.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert loads == ("components/model/tasks/${task}" in PIPELINE[stage]["deps"])


@pytest.mark.parametrize("stage", STEPS)
def test_stage_declares_the_sections_of_its_step(stage: str) -> None:
    sections = {p.name for p in inspect.signature(find(stage)).parameters.values() if p.kind is p.KEYWORD_ONLY}

    assert sections == set(PIPELINE[stage]["params"]) != set()


@pytest.mark.parametrize("stage", STEPS)
def test_command_folders_are_declared(stage: str) -> None:
    command = PIPELINE[stage]["cmd"].split()
    folders = [p.name for p in inspect.signature(find(stage), eval_str=True).parameters.values() if p.annotation is Path]
    inputs, out = command[5:-1], command[-1]

    assert command[:5] == ["exec", "python", "-m", "components", stage]
    assert len(inputs) + 1 == len(folders)
    assert all(any(covers(folder, dep) for dep in PIPELINE[stage]["deps"]) for folder in inputs)
    outputs = [next(iter(o)) if isinstance(o, dict) else o for key in ("outs", "metrics") for o in PIPELINE[stage].get(key, [])]
    assert outputs
    assert all(covers(out, output) for output in outputs)


def covers(folder: str, path: str) -> bool:
    return path == folder or path.startswith(f"{folder}/") or folder.startswith(f"{path}/")


EMPTY = {
    path.relative_to(ROOT).as_posix() for path in (ROOT / "components").rglob("__init__.py") if not ast.parse(path.read_text()).body[1:]
}


def test_packages_missing_in_deps_contain_only_a_docstring() -> None:
    assert "components/__init__.py" in EMPTY


PLUGINS = {"components/gates": {"Params"}, "components/model/methods": {"Params"}, "components/model/tasks": {"Task", "Options", "Kind"}}


@pytest.mark.slow
def test_no_two_classes_share_a_name() -> None:
    files: dict[str, list[str]] = {}
    for path in (path for package in ("components", "flows", "infra", "bench") for path in sorted((ROOT / package).rglob("*.py"))):
        file = path.relative_to(ROOT).as_posix()
        required = set().union(*(names for folder, names in PLUGINS.items() if file.startswith(f"{folder}/")))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name not in required:
                files.setdefault(node.name, []).append(file)

    assert len(files) > 300
    assert {name: shared for name, shared in files.items() if len(shared) > 1} == {}


TESTS = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in sorted((ROOT / "tests").rglob("*.py"))}
SUPPORT = {name for name in TESTS if name.startswith("tests.support.") and not name.endswith("__init__")}


def parse(module: str) -> ast.Module:
    return ast.parse(TESTS[module].read_text(encoding="utf-8"))


def imported_modules(tree: ast.Module) -> set[str]:
    """Return the names of all modules that a file may import, also in functions."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def used_names(tree: ast.Module) -> set[str]:
    """Return every name that a file uses: variables, attributes and imported names."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


@pytest.mark.slow
def test_tests_import_helpers_only_from_support() -> None:
    imports = {
        module: sorted(name for name in imported_modules(parse(module)) if name in TESTS and name not in SUPPORT) for module in TESTS
    }

    assert len(TESTS) > 100
    assert {module: names for module, names in imports.items() if names} == {}, "move the shared part to tests/support"


@pytest.mark.slow
def test_every_module_of_support_is_used() -> None:
    text = {module: TESTS[module].read_text(encoding="utf-8") for module in TESTS}
    imports = {module: imported_modules(parse(module)) for module in TESTS}
    started = {name for name in SUPPORT if any(f'"{name}"' in text[module] for module in TESTS if module != name)}
    by_name = {name for name in SUPPORT if name.rpartition(".")[0] in ("tests.support.cases", "tests.support.sources")}
    by_name |= {"tests.support.forks.sitecustomize"}  # Python imports it at its start

    assert {name for name in SUPPORT - started - by_name if not any(name in names for names in imports.values())} == set()


@pytest.mark.slow
def test_every_helper_of_support_is_used() -> None:
    names = {module: used_names(parse(module)) for module in TESTS}
    unused = []
    for module in sorted(SUPPORT):
        public = [node for node in parse(module).body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
        unused += [f"{module}.{node.name}" for node in public if not any(node.name in used for used in names.values())]

    assert unused == []


def test_readme_lists_every_module_of_support() -> None:
    table = (ROOT / "tests/README.md").read_text(encoding="utf-8").partition("## Helpers")[2]
    listed = set(re.findall(r"`([a-z0-9_]+)/?`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))))

    assert listed == {name.split(".")[2] for name in SUPPORT}
