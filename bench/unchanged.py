"""What a run with nothing to do costs: against DVC alone, and against what both libraries cost to import.

`python -m bench unchanged [--json FILE] [--rounds N]`: seconds of `dvc repro`, of `import prefect, mlflow`, of `retune run` with the server
up and of `retune run --inline`, in turn, on the project at hand, whose last run must be up to date; medians, and the ratio of a run to
twice DVC plus the imports.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "dvc repro": [sys.executable, "-m", "dvc", "repro", "-q"],
    "imports": [sys.executable, "-c", "import prefect, mlflow"],
    "retune run": [sys.executable, "-m", "flows.cli", "run"],
    "retune run --inline": [sys.executable, "-m", "flows.cli", "run", "--inline"],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure in turn and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(argv)
    seconds("retune run")  # the server comes up, and what was left to do is done
    rounds = [{name: seconds(name) for name in COMMANDS} for _ in range(asked.rounds)]
    figures = summary(rounds)
    text = json.dumps(figures, indent=2)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n", encoding="utf-8")
    return 0


def seconds(name: str) -> float:
    """Return the wall clock of one of the commands."""
    start = time.perf_counter()
    subprocess.run(COMMANDS[name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each command, and how each kind of run compares with twice DVC plus the imports."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in COMMANDS}
    allowed = 2 * medians["dvc repro"] + medians["imports"]
    ratios = {f"{name} / (2 x dvc repro + imports)": medians[name] / allowed for name in ("retune run", "retune run --inline")}
    return {name: round(value, 2) for name, value in {**medians, **ratios}.items()}
