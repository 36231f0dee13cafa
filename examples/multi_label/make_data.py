"""Build notes.csv: titles of ICD-10-CM codes, each with the instructions that a coder must read before using it.

Reads the tabular list inside the installed package simple-icd-10-cm (public domain); writes `notes.csv` beside this file, or to the path
given as the only argument. The same edition gives the same bytes.

    pip install -c constraints.txt -e '.[example]'
    python examples/multi_label/make_data.py
"""

import csv
import hashlib
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

EDITION = "icd10c-tabular-April-1-2026.xml"
ROWS_PER_CATEGORY = 4
NOTES = {
    "includes": "includes",
    "excludes1": "excludes 1",
    "excludes2": "excludes 2",
    "useAdditionalCode": "use additional code",
    "codeFirst": "code first",
    "codeAlso": "code also",
    "sevenChrNote": "seventh character",
}
Row = tuple[str, str, str, str]


def main() -> None:
    """Write the CSV."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("notes.csv")
    rows = build()
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("id", "group", "text", "label"))
        writer.writerows(rows)
    print(f"{path}: {len(rows)} rows, {len({row[3] for row in rows})} different sets of {len(NOTES)} labels")


def build() -> list[Row]:
    """Return the rows, ordered by code: of each category those with the smallest hash of their code."""
    spec = find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        raise SystemExit("simple-icd-10-cm is not installed: pip install -c constraints.txt -e '.[example]'")
    rows: list[Row] = []
    for category in ET.parse(Path(spec.origin).parent / "data" / EDITION).getroot().iterfind("chapter/section/diag"):
        members = sorted(described(category, _text(category, "name"), set()), key=lambda row: hashlib.sha256(row[0].encode()).digest())
        rows.extend(members[:ROWS_PER_CATEGORY])
    return sorted(rows)


def described(diagnosis: ET.Element, group: str, above: set[str]) -> Iterator[Row]:
    """Yield code, category, title and notes of a diagnosis and of all below it; what is noted above holds below."""
    notes = above | {NOTES[part.tag] for part in diagnosis if part.tag in NOTES}
    yield _text(diagnosis, "name"), group, _text(diagnosis, "desc"), json.dumps(sorted(notes))
    for part in diagnosis.iterfind("diag"):
        yield from described(part, group, notes)


def _text(diagnosis: ET.Element, name: str) -> str:
    return " ".join((diagnosis.findtext(name) or "").split())


if __name__ == "__main__":
    main()
