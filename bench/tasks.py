"""The worked examples, trained from nothing: what each model reaches, what its strongest baseline reaches, and what it costs.

`python -m bench tasks [--only NAME …] [--json FILE]` clones the commit at hand into a temporary folder and runs there, one after the
other, the commands of every example's README, with this interpreter's packages. NAME is the folder of an example. Times are seconds of
a `retune run` on this machine, the judgement included; memory is that of the whole process tree, as in `bench run`. A `compare.py` adds
a row for each metric of the two models that it holds against each other. FILE is written anew after each command that adds rows.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.run import ROOT, retune, sample
from components.core.documents import read_yaml

T = TypeVar("T")
COMPARE = "compare.py"
COLUMNS = ("example", "metric", "model", "baseline", "reaches", "difference", "interval", "seconds", "memory")


def main(argv: Sequence[str] | None = None) -> None:
    """Make every model and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench tasks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="folders of examples/")
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args(argv)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name:
        clone = Path(name) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for folder in examples(clone, asked.only):
            for command in commands(folder / "README.md"):
                found += run(clone, folder.name, command)
                if asked.json:
                    asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print("\n".join(table(found)))


def run(clone: Path, name: str, command: Sequence[str]) -> list[dict[str, Any]]:
    """Run a command of the README of the example `name`; return the rows that come of it."""
    compares = command[0] == "python" and Path(command[-1]).name == COMPARE
    if command[0] == "retune" or compares:
        found, spent = measured(clone, lambda: comparison(clone, command) if compares else [trained(clone, command)])
        return [{"example": f"{name}/{Path(command[-1] if compares else settings_of(command)).stem}"} | one | spent for one in found]
    script = [sys.executable, *command[1:]]
    if command[0] == "python" and subprocess.run(script, cwd=clone, check=False, stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"examples/{name}: `{shlex.join(command)}` failed; the example's README says what must be installed for it")
    return []


def settings_of(command: Sequence[str]) -> str:
    """Return the settings that a command line `retune run` is about; without `--params` they are the project's."""
    return command[command.index("--params") + 1] if "--params" in command else "params.yaml"


def examples(clone: Path, only: Sequence[str] | None = None) -> list[Path]:
    """Return the folders whose README runs something, in the order of their names."""
    folders = [path.parent for path in sorted((clone / "examples").glob("*/README.md"))]
    known = {folder.name: folder for folder in folders if any(command[0] == "retune" for command in commands(folder / "README.md"))}
    if only and (unknown := sorted(set(only) - set(known))):
        sys.exit(f"no example {', '.join(unknown)}; there are: {', '.join(known)}")
    return [folder for name, folder in known.items() if not only or name in only]


def commands(readme: Path) -> list[list[str]]:
    """Return the command lines of the first indented block that runs something, in words and without their comments."""
    for block in re.findall(r"(?:^    \S.*\n)+", readme.read_text(encoding="utf-8"), re.MULTILINE):
        lines = [shlex.split(line, comments=True) for line in block.splitlines()]
        if any(line[:2] == ["retune", "run"] for line in lines):
            return lines
    return []


def measured(clone: Path, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Do the work; return what it returns, and its seconds and peak memory."""
    peak, done = [0.0], threading.Event()
    thread = threading.Thread(target=sample, args=(clone, peak, done))
    thread.start()
    started = time.monotonic()
    try:
        found = work()
    finally:
        seconds = time.monotonic() - started
        done.set()
        thread.join()
    return found, {"seconds": round(seconds, 1), "peak_memory_gib": round(peak[0], 2)}


def trained(clone: Path, command: Sequence[str]) -> dict[str, Any]:
    """Make the model as the command line `retune run [--params FILE]` says; return its figures."""
    said = json.loads(retune(clone, *command[1:], "--json", *([] if "--inline" in command else ["--inline"])))
    metrics = json.loads((Path(said["page"]).parent / "evaluation/metrics.json").read_text(encoding="utf-8"))
    return figures(clone / settings_of(command), metrics) | {"outcome": said["outcome"], "promoted": said["promoted"]}


def comparison(clone: Path, command: Sequence[str]) -> list[dict[str, Any]]:
    """Hold two models against each other by a script of the example; return the figures of each metric."""
    done = subprocess.run([sys.executable, *command[1:], "--json"], cwd=clone, check=True, stdout=subprocess.PIPE, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def figures(params: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return what a model and its strongest baseline reach on the metric that the example's gate `baseline` decides on."""
    settings = read_yaml(params)
    gate = settings["gates"]["baseline"]
    metric, baseline = gate["metric"], gate["against"]
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


def table(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the figures as a table in Markdown."""
    rows = [
        (
            *(one["example"], one["metric"], f"{one['value']:.3f}", one["baseline"], f"{one['baseline_value']:.3f}"),
            f"{one['difference']:+.3f}",
            "{:+.3f} to {:+.3f}".format(*one["difference_interval"]),
            *(f"{one['seconds']:.0f} s", f"{one['peak_memory_gib']:.2f} GiB"),
        )
        for one in found
    ]
    return [f"| {' | '.join(row)} |" for row in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
