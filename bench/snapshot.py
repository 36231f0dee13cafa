"""Time and memory of a snapshot of a large CSV, compared with `pandas.read_csv(...).to_parquet(...)`.

`python -m bench snapshot [--rows N] [--json FILE]`. Each is measured in a separate process; memory is the peak resident set, imports
included.
"""

import csv
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench._output import parser, report

WORDS = ["acute", "chronic", "fracture", "left", "right", "lower", "upper", "limb", "with", "without", "infection", "due", "to", "initial"]

RETUNE = """
from pathlib import Path
from components.data.snapshot import SnapshotParams, take_snapshot
take_snapshot(Path(FOLDER), Path(FOLDER, "raw"), snapshot=SnapshotParams(source="rows.csv"), required=("text", "label"))
"""
PANDAS = """
import pandas
pandas.read_csv(FOLDER + "/rows.csv", dtype=str, keep_default_na=False).to_parquet(FOLDER + "/rows.parquet")
"""
MEASURE = """
import json, resource, sys, time
started = time.perf_counter()
{code}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "linux" else 2**30)
print(json.dumps({{"seconds": round(time.perf_counter() - started, 2), "peak_gib": round(peak, 3)}}))
"""


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("snapshot", __doc__)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    options = arguments.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        megabytes = write_source(Path(folder, "rows.csv"), options.rows)
        figures = {"rows": options.rows, "csv_mb": megabytes, "retune": measure(RETUNE, folder), "pandas": measure(PANDAS, folder)}
    report(figures, options.json)


def write_source(path: Path, rows: int) -> float:
    rng = random.Random(1)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "group", "text", "label"])
        for number in range(rows):
            writer.writerow([f"r{number}", f"g{number // 4}", " ".join(rng.choices(WORDS, k=14)), f"class {number % 20}"])
    return round(path.stat().st_size / 1e6, 1)


def measure(code: str, folder: str) -> dict[str, float]:
    script = MEASURE.format(code=code.replace("FOLDER", repr(folder)))
    completed = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    figures: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return figures
