"""Time of a first and of an unchanged `retune run`, and the peak memory of the process tree.

`python -m bench run [--json FILE] [--inline] [--check]` clones the current commit into a temporary folder and runs it there with this
interpreter's packages. Memory is the sum of the proportional set sizes of all processes, including the managed Prefect server, sampled
twice a second. With --check, a figure above its limit gives exit code 1.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil

from bench._output import parser, report

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
SECONDS = {"first": 480, "unchanged": 40}
MEMORY_GIB = 4
MACRO_F1 = 0.70


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("run", __doc__)
    arguments.add_argument("--inline", action="store_true")
    arguments.add_argument("--check", action="store_true")
    options = arguments.parse_args(argv)
    with cloned() as clone:
        figures: dict[str, Any] = {"first": measure(clone, options.inline), "unchanged": measure(clone, options.inline)}
        figures["metrics"] = json.loads((clone / "reports/evaluation/scores.json").read_text(encoding="utf-8"))
        evaluated = json.loads((clone / "reports/evaluation/metrics.json").read_text(encoding="utf-8"))
        figures["over_tfidf"] = evaluated["differences"]["tfidf"]["macro_f1"]
    report(figures, options.json)
    if options.check and (missed := missed_limits(figures)):
        sys.exit("\n".join(missed))


def missed_limits(figures: dict[str, Any]) -> list[str]:
    missed = [
        f"the {name} run took {figures[name]['seconds']} s, expected under {limit}"
        for name, limit in SECONDS.items()
        if figures[name]["seconds"] >= limit
    ]
    missed += [
        f"the {name} run used {figures[name]['peak_memory_gib']} GiB" for name in SECONDS if figures[name]["peak_memory_gib"] >= MEMORY_GIB
    ]
    if figures["metrics"]["macro_f1"] < MACRO_F1 or figures["over_tfidf"]["low"] <= 0 or not figures["first"]["promoted"]:
        missed.append("the champion misses its quality limits")
    if not figures["unchanged"]["up_to_date"]:
        missed.append("the unchanged run was not up to date")
    return missed


def measure(clone: Path, inline: bool) -> dict[str, object]:
    """Run once; return seconds, peak memory in GiB and the outcome of the run."""
    output, cost = measured(clone, lambda: retune(clone, "run", "--json", *(["--inline"] if inline else [])))
    result = json.loads(output)
    return {**cost, **{name: result[name] for name in ("outcome", "promoted", "up_to_date")}}


@contextmanager
def cloned() -> Iterator[Path]:
    """Yield a temporary clone of the current commit."""
    with tempfile.TemporaryDirectory(prefix="retune-bench-") as name:
        clone = Path(name) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        yield clone


def measured(clone: Path, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Call `work`; return its result, and its seconds and peak memory."""
    peak, done = [0.0], threading.Event()
    thread = threading.Thread(target=sample, args=(clone, peak, done))
    thread.start()
    started = time.monotonic()
    try:
        result = work()
    finally:
        seconds = time.monotonic() - started
        done.set()
        thread.join()
    return result, {"seconds": round(seconds, 1), "peak_memory_gib": round(peak[0], 2)}


def sample(clone: Path, peak: list[float], done: threading.Event) -> None:
    """Update the peak memory of this process's children and the server of the clone until `done` is set."""
    while not done.wait(0.5):
        family = set(psutil.Process().children(recursive=True))
        state = clone / "var/prefect/server.json"
        if state.exists():
            try:
                supervisor = psutil.Process(json.loads(state.read_text(encoding="utf-8"))["pid"])
                family |= {supervisor, *supervisor.children(recursive=True)}
            except (psutil.Error, ValueError):
                continue
        peak[0] = max(peak[0], sum(map(memory, family)) / 2**30)


def memory(process: psutil.Process) -> int:
    """Return the proportional set size of a process in bytes, 0 if it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.Error, AttributeError):
        return 0


def retune(clone: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(clone), "RETUNE_SERVER_LINGER": "60"}
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
