"""Time of an unchanged run, compared with DVC alone and with the import time of the libraries.

`python -m bench unchanged [--json FILE] [--rounds N]` measures `dvc repro`, `import prefect, mlflow`, `retune run` with a running server
and `retune run --inline` alternately on the current project, whose last run must be up to date. It prints medians in seconds, and the
ratio of a run to twice DVC plus the imports.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from bench._output import parser, report

COMMANDS = {
    "dvc repro": [sys.executable, "-m", "dvc", "repro", "-q"],
    "imports": [sys.executable, "-c", "import prefect, mlflow"],
    "retune run": [sys.executable, "-m", "flows.cli", "run"],
    "retune run --inline": [sys.executable, "-m", "flows.cli", "run", "--inline"],
}


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("unchanged", __doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args(argv)
    seconds("retune run")  # start the server and finish pending work
    rounds = [{name: seconds(name) for name in COMMANDS} for _ in range(options.rounds)]
    report(summary(rounds), options.json)


def seconds(name: str) -> float:
    start = time.perf_counter()
    subprocess.run(COMMANDS[name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each command, and the ratio of each run to twice DVC plus the imports."""
    medians = {name: statistics.median(times[name] for times in rounds) for name in COMMANDS}
    allowed = 2 * medians["dvc repro"] + medians["imports"]
    ratios = {f"{name} / (2 x dvc repro + imports)": medians[name] / allowed for name in ("retune run", "retune run --inline")}
    return {name: round(value, 2) for name, value in {**medians, **ratios}.items()}
