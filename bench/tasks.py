"""Scores of the worked examples and of their strongest baselines, with time and memory.

`python -m bench tasks [--only NAME …] [--json FILE]` clones the current commit into a temporary folder and runs the commands of every
example's README there, with this interpreter's packages. NAME is the folder of an example. Times are seconds of a `retune run` including
the gates; memory is that of the process tree, as in `bench run`. A `compare.py` adds a row per metric of the two compared models. FILE
is rewritten after each command that adds rows.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench._output import parser
from bench.run import cloned, measured, retune
from components.artifacts.metrics import best_on_validation
from components.core.documents import read_yaml
from components.gates import GatesParams
from components.gates.baseline import BEST

COMPARE = "compare.py"
COLUMNS = ("example", "metric", "model", "baseline", "reaches", "difference", "interval", "seconds", "memory")


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("tasks", __doc__)
    arguments.add_argument("--only", nargs="+", metavar="NAME", help="folders of examples/")
    options = arguments.parse_args(argv)
    rows: list[dict[str, Any]] = []
    with cloned() as clone:
        for folder in examples(clone, options.only):
            for command in commands(folder / "README.md"):
                rows += run(clone, folder.name, command)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(rows)))


def run(clone: Path, name: str, command: Sequence[str]) -> list[dict[str, Any]]:
    """Run a command from the README of the example `name`; return its rows."""
    compares = command[0] == "python" and Path(command[-1]).name == COMPARE
    if command[0] == "retune" or compares:
        rows, cost = measured(clone, lambda: comparison(clone, command) if compares else [trained(clone, command)])
        return [{"example": f"{name}/{Path(command[-1] if compares else settings_of(command)).stem}"} | row | cost for row in rows]
    script = [sys.executable, *command[1:]]
    if command[0] == "python" and subprocess.run(script, cwd=clone, check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"examples/{name}: `{shlex.join(command)}` failed; see the example's README for its requirements")
    return []


def settings_of(command: Sequence[str]) -> str:
    """Return the settings file of a `retune run` command line; params.yaml without `--params`."""
    return command[command.index("--params") + 1] if "--params" in command else "params.yaml"


def examples(clone: Path, only: Sequence[str] | None = None) -> list[Path]:
    """Return the folders with commands in their README, sorted by name."""
    folders = [path.parent for path in sorted((clone / "examples").glob("*/README.md"))]
    by_name = {folder.name: folder for folder in folders if any(command[0] == "retune" for command in commands(folder / "README.md"))}
    if only and (unknown := sorted(set(only) - set(by_name))):
        sys.exit(f"no example {', '.join(unknown)}; available: {', '.join(by_name)}")
    return [folder for name, folder in by_name.items() if not only or name in only]


def commands(readme: Path) -> list[list[str]]:
    """Return the command lines of the first indented block with a `retune run`, split into words, without comments."""
    for block in re.findall(r"(?:^    \S.*\n)+", readme.read_text(encoding="utf-8"), re.MULTILINE):
        lines = [shlex.split(line, comments=True) for line in block.splitlines()]
        if any(line[:2] == ["retune", "run"] for line in lines):
            return lines
    return []


def trained(clone: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run the command line `retune run [--params FILE]`; return its figures."""
    result = json.loads(retune(clone, *command[1:], "--json", *([] if "--inline" in command else ["--inline"])))
    metrics = json.loads((Path(result["page"]).parent / "evaluation/metrics.json").read_text(encoding="utf-8"))
    return figures(clone / settings_of(command), metrics) | {"outcome": result["outcome"], "promoted": result["promoted"]}


def comparison(clone: Path, command: Sequence[str]) -> list[dict[str, Any]]:
    """Compare two models with the example's script; return the figures of each metric."""
    completed = subprocess.run([sys.executable, *command[1:], "--json"], cwd=clone, check=True, stdout=subprocess.PIPE, text=True)
    rows: list[dict[str, Any]] = json.loads(completed.stdout)
    return rows


def figures(params: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a model and its baseline on the metric of the example's gate `baseline`."""
    settings = read_yaml(params)
    gate = GatesParams.parse(settings["gates"], "gates").baseline
    metric = gate.metric
    baseline = (best_on_validation(metrics["validation"], metric) or "") if gate.against == BEST else gate.against
    gain = metrics["differences"][baseline][metric]
    return {
        "task": settings["task"],
        "metric": metric,
        "value": metrics["headline"][metric]["value"],
        "interval": [metrics["headline"][metric][end] for end in ("low", "high")],
        "baseline": baseline,
        "baseline_value": metrics["baselines"][baseline][metric]["value"],
        "difference": gain["value"],
        "difference_interval": [gain["low"], gain["high"]],
        "beats_it": gain["low"] > 0 and not gain["doubt"],
        "rows": metrics["rows"],
        "groups": metrics["groups"],
    }


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    cells = [
        (
            *(row["example"], row["metric"], f"{row['value']:.3f}", row["baseline"], f"{row['baseline_value']:.3f}"),
            f"{row['difference']:+.3f}",
            "{:+.3f} to {:+.3f}".format(*row["difference_interval"]),
            *(f"{row['seconds']:.0f} s", f"{row['peak_memory_gib']:.2f} GiB"),
        )
        for row in rows
    ]
    return [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *cells)]
