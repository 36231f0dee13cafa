"""Write prompts.csv: descriptions of diagnoses as prompts, and the chapter of ICD-10-CM that each belongs to as completions.

Reads examples/diagnosis/diagnosis.csv; writes beside this file, or to the path given as the only argument. The same bytes every time.

    python examples/causal_lm/make_data.py
"""

import csv
import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHARE = 8  # one category in so many


def main() -> None:
    """Write the CSV."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "prompts.csv"
    with (HERE.parent / "diagnosis" / "diagnosis.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if _draw(row["group"]) % SHARE == 0]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "group", "prompt", "completion"))
        writer.writerows((row["id"], row["group"], f"Diagnosis: {row['text']}", row["label"]) for row in rows)
    print(f"{path}: {len(rows)} rows, {len({row['label'] for row in rows})} completions")


def _draw(group: str) -> int:
    return int(hashlib.sha256(group.encode()).hexdigest(), 16)


if __name__ == "__main__":
    main()
