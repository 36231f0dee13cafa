"""docs/containers.md matches the files it describes."""

import json
import re

import yaml
from typer.testing import CliRunner

from flows.cli import app
from tests.support.infra_files import COMPOSE_FILES, KUBERNETES, ONE_SHOT, OVERLAYS, SERVICES
from tests.support.project import ROOT

PAGE = (ROOT / "docs/containers.md").read_text(encoding="utf-8")


def rows(columns: int) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
    return [row for row in cells if len(row) == columns]


def test_services_table_matches_compose_file() -> None:
    ends = {name: row[2] for row in rows(3) for name in re.findall(r"`([\w-]+)`", row[0]) if name in SERVICES}

    assert set(ends) == set(SERVICES)
    assert {name for name, value in ends.items() if value == "yes"} == ONE_SHOT


def test_variables_table_has_the_defaults_of_the_file() -> None:
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE_FILES[0].read_text(encoding="utf-8")))
    documented = {}
    for row in rows(3):
        names = re.findall(r"`([A-Z_]+)`", row[0])
        documented |= dict(zip(names, [value.strip(" `") for value in row[1].split(",")], strict=False))

    assert documented == {name: value for name, value in used.items() if name not in ("TORCH_INDEX", "REVISION")}
    assert {"TORCH_INDEX", "REVISION"} <= set(re.findall(r"\b[A-Z]+_?[A-Z]+(?==)", PAGE))


def test_pools_table_has_the_sizes_of_the_overlays() -> None:
    documented = {row[0].strip("`"): row for row in rows(3) if row[0].strip("`") in OVERLAYS}

    assert set(documented) == set(OVERLAYS)
    for overlay, (_, pool, description) in documented.items():
        folder = KUBERNETES / "overlays" / overlay / "worker"
        sizes = json.loads((folder / "variables.json").read_text(encoding="utf-8"))
        (generated,) = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["configMapGenerator"]
        assert generated["literals"] == [f"name={pool.strip('`')}"]
        assert f"{sizes['cpu_limit']} CPUs, {sizes['memory_limit'].replace('Gi', ' GiB')}" in description


def test_files_and_commands_on_the_page_exist() -> None:
    files = re.findall(r"(?<![\w./-])((?:infra|tests|base|images|overlays)/[\w./-]+\w)", PAGE)
    modules = re.findall(r"python -m ([\w.]+)", PAGE)
    created_by_the_reader = re.compile(r"infra/secrets|base/secrets\.env")

    assert len(files) > 15
    for name in files:
        matches = [folder / name for folder in (ROOT, ROOT / "infra", KUBERNETES) if (folder / name).exists()]
        assert matches or created_by_the_reader.search(name), name
    assert modules
    assert all((ROOT / f"{module.replace('.', '/')}.py").is_file() for module in modules)
    output = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}).invoke(app, ["deploy", "--help"]).output
    assert "--pool" in output
